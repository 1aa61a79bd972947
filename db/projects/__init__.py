"""Projects, their versions and their lines of work."""
