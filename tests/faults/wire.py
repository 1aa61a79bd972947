"""A proxy before Postgres that cuts connections at a given statement, or goes deaf.

    with wired(dsn) as wire:
        ...                                 # clients connect to wire.url
        wire.cut_at(CLAIM, "answered")      # the next claim is done, and its answer lost
        wire.deaf = True                    # nothing goes through, nothing is closed

Statements are recognised by their text: the client's messages are read as the protocol
has them (Parse names a text, Bind names what is executed).
"""

import socket
import struct
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from tests.waiting import wait_until

# before: it never reaches Postgres · sent: it does, and nobody waits for what comes of it ·
# answered: Postgres has done it, and the answer is lost
When = Literal["before", "sent", "answered"]
READY = b"Z"  # ReadyForQuery: what was asked is done, and committed if it was to be
UNTYPED = 8  # the start of a connection: a length and a number, until it is the protocol's
PROTOCOL = 3  # the major version of a start that is no request for encryption


@dataclass
class Cut:
    """A cut that is wanted at the statement whose text has `text` in it."""

    text: str
    when: When
    spared: int = 0  # so many statements like this before it
    struck: threading.Event = field(default_factory=threading.Event)


@dataclass
class Wire:
    """The proxy. `url` is the server's, through it; `deaf` stops all traffic while it is true."""

    url: str
    server: tuple[str, int]
    deaf: bool = False
    refusing: bool = False  # new connections are closed at once
    cuts: list[Cut] = field(default_factory=list[Cut])
    lines: list["_Line"] = field(default_factory=list["_Line"])
    asked: list[str] = field(default_factory=list[str])  # every statement that came by
    waits: int = 0  # how often a client then waited for its answer
    one: threading.Lock = field(default_factory=threading.Lock)

    def cut_at(self, text: str, when: When, *, spared: int = 0) -> Cut:
        """Cut the connection at the next statement like this; `spared` of them go before."""
        self.cuts.append(cut := Cut(" ".join(text.split()), when, spared))
        return cut

    def cut(self) -> int:
        """Cut all connections there are; returns how many."""
        lines = [line for line in self.lines if not line.closed]
        for line in lines:
            line.close()
        return len(lines)

    def take(self, statement: str) -> Cut | None:
        """The cut that is wanted at this statement; each is made once."""
        self.asked.append(statement)
        for cut in self.cuts:
            if cut.text in statement:
                cut.spared -= 1
                if cut.spared < 0:
                    self.cuts.remove(cut)
                    return cut
        return None


class _Line:
    """One client's connection, and ours to the server for it."""

    def __init__(self, wire: Wire, client: socket.socket) -> None:
        self.wire, self.client = wire, client
        self.server = socket.create_connection(wire.server)
        for end in (self.client, self.server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.closed = False
        self.cut: Cut | None = None  # its statement is on its way
        self.works = 2
        self.texts: dict[bytes, str] = {}
        for work in (self._ask, self._answer):
            threading.Thread(target=self._until_closed, args=(work,), daemon=True).start()

    def close(self) -> None:
        """Hang up on both: what was sent to the server before this, it still reads."""
        self.closed = True
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _until_closed(self, work: Callable[[], None]) -> None:
        with suppress(OSError, EOFError):
            work()
        self.close()
        with self.wire.one:
            self.works -= 1
            if not self.works:  # nobody reads from them any more
                self.client.close()
                self.server.close()

    def _ask(self) -> None:
        """From the client to the server, message by message."""
        started = False
        while True:
            head = _exactly(self.client, UNTYPED if not started else 5)
            length = struct.unpack("!I", head[:4] if not started else head[1:])[0]
            body = _exactly(self.client, length - (UNTYPED if not started else 4))
            if not started:
                started = struct.unpack("!H", head[4:6])[0] == PROTOCOL
                self._forward(head + body)
            elif not self._forward_or_cut(head, body):
                return

    def _forward_or_cut(self, head: bytes, body: bytes) -> bool:
        """Whether the line goes on."""
        kind = head[:1]
        if kind == b"P":
            name, text = body.split(b"\0")[:2]
            self.texts[name] = " ".join(text.decode().split())
        self.wire.waits += kind in (b"S", b"Q")
        cut = self._met(kind, body)
        if cut and cut.when == "before":
            cut.struck.set()
            return False
        if cut:
            self.cut = cut
        self._forward(head + body)
        if self.cut and self.cut.when == "sent" and kind in (b"S", b"Q"):
            self.cut.struck.set()  # Sync: all of the statement is on its way
            return False
        return True

    def _met(self, kind: bytes, body: bytes) -> Cut | None:
        if kind == b"Q":
            statement = " ".join(body[:-1].decode().split())
        elif kind == b"B":
            statement = self.texts.get(body.split(b"\0", 2)[1], "")
        else:
            return None
        return self.wire.take(statement)

    def _forward(self, data: bytes) -> None:
        self._while_deaf()
        self.server.sendall(data)

    def _answer(self) -> None:
        """From the server to the client; an answer that is to be lost is read, and kept."""
        while data := self.server.recv(65536):
            self._while_deaf()
            if not self.cut:
                self.client.sendall(data)
            elif self.cut.when == "answered" and data[-6:-5] == READY:
                self.cut.struck.set()
                return

    def _while_deaf(self) -> None:
        while self.wire.deaf and not self.closed:
            threading.Event().wait(0.01)
        if self.closed:
            raise EOFError


def _exactly(end: socket.socket, count: int) -> bytes:
    """So many bytes. Raises EOFError when the other side hangs up."""
    data = b""
    while len(data) < count:
        if not (more := end.recv(count - len(data))):
            raise EOFError
        data += more
    return data


@contextmanager
def wired(dsn: str) -> Generator[Wire]:
    """A proxy before the server of `dsn`, until the block ends."""
    parts = urlsplit(dsn)
    assert parts.hostname
    assert parts.port
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        port = listening.getsockname()[1]
        netloc = parts.netloc.replace(f":{parts.port}", f":{port}")
        wire = Wire(parts._replace(netloc=netloc).geturl(), (parts.hostname, parts.port))
        done = threading.Event()
        thread = threading.Thread(target=_accept, args=(wire, listening, done), daemon=True)
        thread.start()
        try:
            yield wire
        finally:
            done.set()
            wire.deaf = False
            wire.cut()
            thread.join()
            wait_until(
                lambda: not any(line.works for line in wire.lines), description="its end"
            )


def _accept(wire: Wire, listening: socket.socket, done: threading.Event) -> None:
    while not done.is_set():
        try:
            client, _ = listening.accept()
        except TimeoutError:
            continue
        client.settimeout(None)
        try:
            if wire.refusing:
                client.close()
            else:
                wire.lines.append(_Line(wire, client))
        except OSError:  # the server is down
            client.close()
