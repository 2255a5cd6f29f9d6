"""What Python nodes are written with."""
