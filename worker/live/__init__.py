"""What is shown as it happens, in Redis: where a chain has got to, what its agent is doing.

It decides nothing and may be lost at any time; every key ends by itself.
"""
