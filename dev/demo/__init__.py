"""`baton demo`: the main job on real input, and what is checked of it at the end."""
