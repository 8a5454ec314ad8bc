"""From bytes to pixels or a string; one file per medium."""
