"""Passwords of this checkout's own: each is made once, and lies in a file for its owner only."""

import os
import secrets
from pathlib import Path


def kept(file: Path) -> str:
    """The password in that file, which is made when it is missing or empty."""
    if file.exists() and (known := file.read_text().strip()):
        file.chmod(0o600)
        return known
    file.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = secrets.token_hex(16)  # no sign that a URL writes another way
    write(file, fresh)
    return fresh


def write(file: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as writing:
        writing.write(text)
