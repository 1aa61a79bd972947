"""Named moments in a job's life: at each claim, spawn, write, commit, publication and ack.

Nothing happens at them, but in a process of the fault suite, which sets `strike` and
dies, stops or raises where it is told to (dev/faults/strikes.py).
"""

from collections.abc import Callable

POINTS = (
    "message.accepted",  # a plain producer's request is committed, and nothing of it begun
    "claim.before",
    "claim.after",
    "workspace.begun",
    "turn.recorded",  # the run and its candidates are written down, the agent not yet spawned
    "turn.began",
    "agent.ready",  # it runs, and nothing of the model's has come
    "transcript.stored",  # a batch that the agent wrote is committed
    "tool",
    "tool.done",
    "text",
    "turn.ended",  # the agent is gone, its turn whole, and nothing of it committed
    "tree.made",
    "commit.before",
    "commit.after",
    "publish.before",
    "publish.after",
    "workspace.confirmed",
    "checkpoint.saved",
    "ending.before",  # a job that ends or waits without moving the head
    "ending.after",
    "ack.before",
    "lease.renewed",
    "relay.taken",
    "relay.sent",
    "rescue.taken",
)

strike: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """This process is at the point of that name."""
    if strike is not None:
        strike(name)
