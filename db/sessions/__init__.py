"""Sessions: the head of each line and how it moves, the registry of all, turns and what they cost."""
