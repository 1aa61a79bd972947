"""`baton bench`: what Baton itself costs, and what grows."""
