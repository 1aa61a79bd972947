"""What the environment says: settings, what they must be to each other, logging, starting."""
