"""A server that webhooks are sent to, and what it was sent."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

from dev.stack.processes import LOOPBACK


@dataclass
class Receiver:
    """Answers 204, or what `answers` say, one after the other; a callable is called before that."""

    port: int = 0
    got: list[tuple[dict[str, str], bytes]] = field(
        default_factory=list[tuple[dict[str, str], bytes]]
    )
    answers: list[int | Callable[[], int]] = field(
        default_factory=list[int | Callable[[], int]]
    )
    paths: list[str] = field(default_factory=list[str])

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/hook?to=us"

    def verified(self, secret: str, which: int = -1) -> dict[str, Any]:
        """What it was sent, as the official library takes it. Raises where that would not."""
        headers, body = self.got[which]
        return Webhook(secret).verify(body, headers)


@contextmanager
def receiver() -> Generator[Receiver]:
    """One of them on loopback, until the block ends."""
    one = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            one.paths.append(self.path)
            one.got.append((dict(self.headers), self.rfile.read(length)))
            answer = one.answers.pop(0) if one.answers else 204
            self.send_response(answer if isinstance(answer, int) else answer())
            self.send_header("Location", f"http://{LOOPBACK}:{one.port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    one.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
