"""What goes for good: projects and users that are deleted, and litter of dead runs."""
