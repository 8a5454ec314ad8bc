"""From an item to a vector, in memory. This room imports nothing of ours."""
