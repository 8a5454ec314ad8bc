"""One file per kind of head; the file's name is the kind's name."""
