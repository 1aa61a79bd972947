"""Whether a webhook is Baton's, by Standard Webhooks: signed with the secret that you share."""

import base64
import hmac
import time
from collections.abc import Mapping

from pydantic import ValidationError

from baton_client.results import Job

LATE = 300.0  # seconds by which the clocks may differ, and a webhook be old


class NotGenuine(Exception):
    """It is not Baton's, or too old: answer 400 and do nothing."""


def verify(secret: str, body: bytes, headers: Mapping[str, str]) -> Job:
    """The job that it tells of. `secret` is as `baton webhooks --secret` prints it, `body` the bytes
    as they came. Raises NotGenuine.

    It may come twice, with the same `webhook-id`.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message, at = given["webhook-id"], given["webhook-timestamp"]
        signed, moment = given["webhook-signature"].encode(), float(int(at))
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        text = f"{message}.{at}.".encode() + body
    except (KeyError, ValueError, OverflowError) as exc:
        raise NotGenuine(
            "It lacks a header of Standard Webhooks, or has none that counts."
        ) from exc
    if abs(time.time() - moment) > LATE:
        raise NotGenuine("It is too old, or from the future.")
    ours = b"v1," + base64.b64encode(hmac.digest(key, text, "sha256"))
    if not any(hmac.compare_digest(ours, one) for one in signed.split(b" ")):
        raise NotGenuine("It is not signed with this secret.")
    try:
        return Job.model_validate_json(body)
    except ValidationError as exc:
        raise NotGenuine("It is signed and tells of no job.") from exc
