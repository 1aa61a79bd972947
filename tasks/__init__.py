"""What the world asks for: a module for each kind of job, and clean-up."""
