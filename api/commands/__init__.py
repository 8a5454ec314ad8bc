"""Verbs of the command line: a file here is a verb. Its `run` parses nothing, prints nothing, and returns a `Result`."""
