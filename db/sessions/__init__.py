"""Sessions: what a turn's commit writes, the registry of all, turns, costs, and the past to retell."""
