"""Acts that cross rooms, a file for each part of daily life."""
