"""Verbs of the command line: a file here is a verb. Its `run` prints nothing and returns a `Result`."""
