"""From stored vectors and labels to a small model. This room imports `index` and `embedder`."""
