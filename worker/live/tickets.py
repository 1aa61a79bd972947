"""Tickets and cookies: what lets a browser speak for one user of one project.

A producer's service asks for a ticket with its key and hands it to its page. The page changes it
for a cookie, so that a reload needs no new one. Both are signed, not stored; signing out notes the
ticket's id, and neither counts any more.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from itsdangerous import BadData, URLSafeTimedSerializer

from config.settings import BadSettings, settings

TICKET = timedelta(minutes=5)
COOKIE = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Guest:
    """Who a ticket or a cookie is for."""

    id: str
    project: str
    user: str
    until: datetime


class Tickets:
    """Signs and reads them with the secret that all gateways share."""

    def __init__(self, secret: str) -> None:
        self._tickets = URLSafeTimedSerializer(secret, salt="baton.ticket")
        self._cookies = URLSafeTimedSerializer(secret, salt="baton.cookie")

    def ticket(self, project: str, user: str) -> tuple[str, datetime]:
        """A ticket and when it ends."""
        until = datetime.now(UTC) + TICKET
        return self._tickets.dumps([secrets.token_urlsafe(9), project, user]), until

    def cookie(self, guest: Guest) -> tuple[str, datetime]:
        """What the cookie of this guest holds and when it ends."""
        until = datetime.now(UTC) + COOKIE
        return self._cookies.dumps([guest.id, guest.project, guest.user]), until

    def of_ticket(self, text: str) -> Guest | None:
        """The guest of a ticket; None: it is none of ours, or its time has passed."""
        return _guest(self._tickets, text, TICKET)

    def of_cookie(self, text: str) -> Guest | None:
        """The guest of a cookie; None as for a ticket."""
        return _guest(self._cookies, text, COOKIE)


def _guest(signer: URLSafeTimedSerializer, text: str, life: timedelta) -> Guest | None:
    try:
        (number, project, user), at = signer.loads(
            text, max_age=int(life.total_seconds()), return_timestamp=True
        )
    except (BadData, ValueError, TypeError):
        return None
    return Guest(str(number), str(project), str(user), at + life)


def cookie_name(project: str) -> str:
    """One cookie a project, so that two tabs with two projects both go on."""
    return f"baton_{sha256(project.encode()).hexdigest()[:16]}"


def from_settings() -> Tickets:
    """Raises BadSettings where no secret is set."""
    if not (secret := settings().secret.get_secret_value()):
        raise BadSettings(
            "BATON_SECRET is not set: give every gateway the same random text of 32 characters or"
            " more, such as `openssl rand -hex 32` prints."
        )
    return Tickets(secret)
