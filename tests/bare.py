"""A WebSocket client that only says what it is told to: it reads nothing, and answers nothing."""

import base64
import json
import os
import socket
from typing import Any
from urllib.parse import urlsplit

import psutil

from tests.gateways import Gateway


def bare(address: str) -> socket.socket:
    """A WebSocket whose client answers nothing, not even that it is closed."""
    parts = urlsplit(address)
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect((parts.hostname or "", parts.port or 0))
    hello = (
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n"
    )
    one.sendall(hello.encode())
    assert one.recv(4096).startswith(b"HTTP/1.1 101")
    return one


def told(one: socket.socket, **frame: Any) -> None:
    text = json.dumps(frame).encode()
    length = [0x80 | len(text)] if len(text) < 126 else [0xFE, *len(text).to_bytes(2, "big")]
    one.sendall(bytes([0x81, *length]) + bytes(4) + text)  # masked with zeros


def held(at: Gateway, ours: list[socket.socket]) -> int:
    """How many of these the gateway still has."""
    ports = {one.getsockname()[1] for one in ours}
    open_ones = psutil.Process(at.process.pid).net_connections()
    return sum(bool(c.raddr) and c.raddr.port in ports for c in open_ones)
