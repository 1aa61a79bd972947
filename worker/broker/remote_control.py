"""What workers do when they are told to over the broker: what Flower shows of them, and revokes.

Whoever may publish to Redis may tell every worker at once. Celery's own list has commands that
end workers, stop them reading their queue, or have them lose a message; all of them are answered
with a sentence, and do nothing. BATON_REMOTE_CONTROL=off leaves out the rest too; a revoke by
Flower, `celery -A worker.app` or `baton cancel` goes over Postgres anyhow (revokes.py).
"""

from collections.abc import Callable
from typing import Any

from celery.worker.control import Panel

from worker.broker import revokes

SHOWN = (
    *("ping", "stats", "active_queues", "registered", "conf"),
    *("scheduled", "active", "reserved", "revoked"),
)
DONE = ("enable_events", *revokes.COMMANDS)  # which are ours, not Celery's
TAKEN = frozenset((*SHOWN, *DONE))


def limit() -> None:
    """Leave nothing but TAKEN in the list that this process's worker goes by."""
    commands: dict[str, Any] = Panel.data
    for name in set(commands) - TAKEN:
        commands[name] = _refusal(name)


def _refusal(name: str) -> Callable[..., dict[str, str]]:
    def refuse(_state: Any, **_given: Any) -> dict[str, str]:
        return {"error": f"Baton's workers do not take {name} over the broker."}

    return refuse
