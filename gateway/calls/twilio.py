"""Twilio: whose request it is, and the frames of its Media Streams."""

import base64
import hmac
import json
from hashlib import sha1
from typing import Any

from starlette.requests import HTTPConnection

from config.settings import settings

SCHEMES = ("wss", "https", "ws", "http")


def address(connection: HTTPConnection, path: str) -> str:
    """How a WebSocket of ours is reached from outside."""
    base = settings().web_url.rstrip("/") or str(connection.base_url).rstrip("/")
    return base.replace("http", "ws", 1) + path


def signed(connection: HTTPConnection, path: str) -> bool:
    """Whether Twilio has signed the request; true where no token is set to check it with."""
    token = settings().twilio_token.get_secret_value()
    if not token:
        return True
    given = connection.headers.get("x-twilio-signature", "")
    rest = address(connection, path).partition("://")[2]
    return any(
        hmac.compare_digest(signature(token, f"{scheme}://{rest}"), given) for scheme in SCHEMES
    )


def signature(token: str, url: str) -> str:
    """What Twilio signs a request without parameters with."""
    # Twilio's own scheme: HMAC-SHA1 of the address.
    return base64.b64encode(hmac.new(token.encode(), url.encode(), sha1).digest()).decode()


def frame(kind: str, stream: str, **more: Any) -> str:
    """A frame to Twilio: media, mark or clear."""
    return json.dumps({"event": kind, "streamSid": stream, **more})
