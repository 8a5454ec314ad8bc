"""One file per encoder family; the file's name is the kind's name."""
