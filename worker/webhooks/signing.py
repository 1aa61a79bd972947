"""The signature of a webhook, as Standard Webhooks has it, and the secret behind it.

Receivers verify it with any library of Standard Webhooks, or with `baton_client`.
"""

import base64
import hmac
from datetime import UTC, datetime

from standardwebhooks import Webhook

from config.settings import listed, settings

PURPOSE = b"baton.callback"  # what the secret that is made from BATON_SECRET is for


def secrets() -> list[str]:
    """The secrets as receivers are given them, the newest first; empty: none is set."""
    if given := listed(settings().callback_secret.get_secret_value()):
        return given
    if not (of_all := settings().secret.get_secret_value()):
        return []
    made = hmac.digest(of_all.encode(), PURPOSE, "sha256")
    return ["whsec_" + base64.b64encode(made).decode()]


def headers(message: str, body: str) -> dict[str, str]:
    """The headers of a webhook that is sent now. Each secret signs, so that receivers may change
    from one to the next."""
    now = datetime.now(UTC)
    signed = [Webhook(one).sign(message, now, body) for one in secrets()]
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signed),
    }
