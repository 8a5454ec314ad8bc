"""One file per sort of source; the file's name is the kind's name."""
