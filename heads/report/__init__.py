"""The transfer report: one file a question, each from arrays to a verdict; nothing here reads a store."""
