"""One file per kind of index; the file's name is the kind's name."""
