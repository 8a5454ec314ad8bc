"""From vectors to ranked neighbours. This room imports `embedder`."""
