"""Flower, which may cancel and start anybody's jobs: never without a password.

    FLOWER_BASIC_AUTH=ann:secret    or OAuth (FLOWER_AUTH), as Flower documents both

Flower itself lets anybody in who reaches its port when it has neither. With one of them it
refuses, too, what a page of another origin lets a browser send along with its owner's password.
"""

import sys
from typing import Any, Literal

import click

Verdict = tuple[Literal["ok", "warn", "fail"], str]

WAIT = 5.0  # seconds for it to answer
CLOSED = (401, 403)
OPEN = (
    "Flower does not start without a password, since it may cancel and start anybody's jobs:"
    " set FLOWER_BASIC_AUTH=user:password, or FLOWER_AUTH with OAuth."
)


def refuse_open() -> None:
    """In Flower's process, once it has read its options: raises SystemExit where anybody could
    come in. Elsewhere nothing."""
    command = click.get_current_context(silent=True)
    if command is None or command.info_name != "flower":
        return  # every command of Celery's loads Flower
    options: Any = sys.modules["flower.options"].options
    if not options.auth and not all(map(_has_password, options.basic_auth or [""])):
        raise SystemExit(OPEN)


def _has_password(credentials: str) -> bool:
    return bool(credentials.partition(":")[2])


def closed(url: str) -> Verdict:
    """Whether the Flower at this address (`http://user:password@host:port`) is closed to whoever
    has no password, and open to who has it."""
    import httpx

    here = httpx.URL(url)
    stranger = here.copy_with(userinfo=b"")
    try:
        with httpx.Client(timeout=WAIT, trust_env=False) as client:
            unasked = client.get(stranger.join("/api/workers")).status_code
            asked = client.get(here.join("/api/workers")).status_code
    except httpx.HTTPError as exc:
        return "warn", f"it does not answer at {stranger} ({type(exc).__name__}): start it."
    if unasked not in CLOSED:
        return "fail", f"{stranger} lets anybody in: set FLOWER_BASIC_AUTH and start it again."
    if asked in CLOSED:
        return "warn", f"{stranger} refuses the password of BATON_FLOWER_URL: correct it."
    return "ok", f"{stranger} is closed to whoever has no password"
