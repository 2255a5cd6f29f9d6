"""What the kinds of node do: one module per kind, and the reading of the files that sources name."""
