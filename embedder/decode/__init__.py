"""From bytes to pixels or a string: one file per medium, and the process in which pictures are decoded."""
