"""One file per library that can run a network in torch's place; the file's name is the runtime's name."""
