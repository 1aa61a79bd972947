"""Why a compaction failed, from the words of the CLI: it has no field for that (2.1.332).

    status {"compact_result": "failed", "compact_error": "Error during compaction: API Error: 529 …"}

What it quotes is what an ordinary turn says of the same failure beside its fields. That each
of these comes to the same class as there is held by tests/contracts/test_compactions.py.
"""

import re

from worker.failures.errors import AgentFailed
from worker.failures.verdicts import AGENT, Verdict
from worker.failures.vocabulary import class_of

STATUS = re.compile(r"API Error: (\d{3})\b|rejected \((\d{3})\)")
WORDS = [  # the first that fits
    (re.compile(r"context limit|too long"), "prompt_too_long"),
    (re.compile(r"media exceeds"), "request_too_large"),
    (re.compile(r"Credit balance"), "billing_error"),
    (re.compile(r"API key|/login|authenticate"), "authentication_failed"),
    (re.compile(r"issue with the selected model"), "model_not_found"),
    (re.compile(r"You've hit your .*limit"), "rate_limit"),
    (re.compile(r"\(E[A-Z]{4,}\)|Connection|timed out"), "unreachable"),
    (re.compile(r"malformed response"), "malformed_response"),
]
# Not a failure: there is nothing that a summary could take the place of.
NOTHING = re.compile(r"(No|Not enough) messages to compact")
PASSING = {Verdict.PARK, Verdict.RETRY}


def failure(text: str) -> AgentFailed | None:
    """The failure that the CLI tells of a compaction; None if there was nothing to compact."""
    if NOTHING.search(text):
        return None
    status = int(found[1] or found[2]) if (found := STATUS.search(text)) else None
    kind = next((word for form, word in WORDS if form.search(text)), None)
    if status is not None:
        kind = "unknown"
    return AgentFailed(kind or "compaction_failed", text or "It was not compacted.", status)


def outage(text: str) -> AgentFailed | None:
    """The failure, if it passes: what could not be compacted now can be later."""
    failed = failure(text)
    if failed is None or failed.kind == "compaction_failed":
        return None
    verdict, _ = AGENT[class_of(failed.kind, status=failed.status)]
    return failed if verdict in PASSING else None
