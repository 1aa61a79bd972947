"""What a person or a program asked for that cannot be done."""


class Failed(Exception):
    """It cannot be done, or did not succeed; the text says what to do. Exit code 1 of `baton`."""
