"""Routes of the HTTP service: a file here with a `router` is a route; they are plain functions, run in threads."""
