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
    "check.before",  # the turn is committed, and a command of its check not yet begun
    "check.began",  # the command runs
    "check.ended",  # it has ended, and what it came to is not written down
    "check.recorded",
    "check.taken_back",  # session and files are as before the request, the job has not ended
    "check.settled",  # all have passed, and the job has not ended
    "race.begun",  # the jobs of a race are there, and its own job does not wait yet
    "race.promoted",  # one has taken the main line's place, and the job has not ended
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
