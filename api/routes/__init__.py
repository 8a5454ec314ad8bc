"""One file per resource; a file with a `router` is a route."""
