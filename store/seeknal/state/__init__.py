"""What happened: run records, node states, completed intervals and locks, behind one protocol."""
