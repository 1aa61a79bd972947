"""What a command printed: its beginning and its end, as text that harms nobody; and how one
failure is told from another.

Programs print what they like: a gigabyte, binary data, codes that steer a terminal.
"""

import hashlib
import re
from dataclasses import dataclass, field

from worker.text.storable import plain

STEERING = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
LINE_ENDS = re.compile(r"\r\n?")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# What is another in each run, though nothing has changed: times, addresses, our own directories.
PASSING = re.compile(
    r"\b\d+(?:[.,]\d+)?\s?(?:ns|µs|us|ms|s|sec|secs|seconds?|m|min|minutes?)\b"
    r"|\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*|\b\d\d:\d\d:\d\d(?:\.\d+)?\b|\b0x[0-9a-f]+\b"
    r"|/tmp/\S+|\bpid \d+\b|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    re.IGNORECASE,
)


@dataclass
class Kept:
    """At most `limit` bytes of what comes: half from its beginning, half from its end."""

    limit: int
    total: int = 0
    _head: bytearray = field(default_factory=bytearray)
    _tail: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Take in what comes next."""
        self.total += len(data)
        half = self.limit // 2
        room = max(half - len(self._head), 0)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * half:
            del self._tail[:-half]

    @property
    def head(self) -> str:
        """The beginning; all of it where it is no longer than the limit."""
        whole = self.total <= self.limit
        return readable(bytes(self._head + self._tail) if whole else bytes(self._head))

    @property
    def tail(self) -> str:
        """The end, where something before it was left out; else nothing."""
        if self.total <= self.limit:
            return ""
        return readable(bytes(self._tail[-(self.limit // 2) :]))


def readable(data: bytes) -> str:
    """Bytes as text that steers no terminal, and that Postgres holds."""
    text = STEERING.sub("", data.decode(errors="replace"))
    return plain(CONTROL.sub("\ufffd", LINE_ENDS.sub("\n", text)))


def failure(command: str, ending: str, head: str, tail: str) -> str:
    """A digest of a failure: the same again has the same, whatever the clock says."""
    said = PASSING.sub("#", f"{head}\n{tail}")
    return hashlib.sha256(f"{command}\0{ending}\0{said}".encode()).hexdigest()
