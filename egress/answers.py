"""How the proxy says no: errors in the API's own shape, which the agent's CLI reads.

Two statuses are ours, and no API's: the worker knows by them what it was (worker/failures).
"""

import json

import h11

SPENT = 432  # the turn is over its budget
ENDED = 433  # the token is nobody's, or its turn is over


class Refused(Exception):
    """A request that is answered here: the status and a sentence that says what to do."""

    def __init__(self, status: int, text: str, kind: str = "permission_error") -> None:
        super().__init__(text)
        self.status, self.kind = status, kind


def of(refused: Refused) -> tuple[h11.Response, bytes]:
    """The answer and its body. A client of the API does not try again."""
    error = {"type": refused.kind, "message": str(refused)}
    body = json.dumps({"type": "error", "error": error}).encode()
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("x-should-retry", "false"),
    ]
    if refused.status == 407:
        headers.append(("proxy-authenticate", 'Basic realm="baton"'))
    return h11.Response(status_code=refused.status, headers=headers), body
