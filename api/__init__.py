"""The doors: command line, HTTP and Python. This room imports all the others."""
