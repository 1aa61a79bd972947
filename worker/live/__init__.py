"""What is shown as it happens, in Redis. It decides nothing, and may be lost at any time."""
