"""The clock of all candidates: each step appends the time to one file, whatever ran it."""

import os
import struct
import time
from functools import cache
from pathlib import Path
from uuid import uuid4

RECORD = struct.Struct("<q")
STEPS = 3  # of a chain
NAME = "BENCH_MARKS"


@cache
def _file() -> int:
    return os.open(os.environ[NAME], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def step() -> str:
    """A step is done: it hands on the id of a new session."""
    os.write(_file(), RECORD.pack(time.time_ns()))
    return str(uuid4())


def read(path: Path) -> list[int]:
    """When each step was done, in nanoseconds."""
    return [at for (at,) in RECORD.iter_unpack(path.read_bytes())] if path.exists() else []
