"""Noticing a killed pool child soon, because its message keeps a slot from others.

Celery waits 10 s for what a dead child may still have said, and looks every 5 s. Until then
the child's message counts as one that is being worked on, so that a worker whose other
slots are busy fetches none: not even the one for the job that was rescued. A job's result
is in its row; there is nothing to wait for.
"""

from typing import Any

from celery import Celery, bootsteps

WAIT = 0.5  # seconds for a dead child's last word: a task may just have ended
LOOK_EVERY = 0.5  # seconds


class Look(bootsteps.StartStopStep):
    """Has the pool look after its children more often than Celery does."""

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        children: Any = getattr(worker.pool, "_pool", None)
        if hasattr(children, "maintain_pool"):  # other pools have no children
            hub.call_repeatedly(LOOK_EVERY, children.maintain_pool)


def attend(app: Celery) -> None:
    """Let the app's workers notice losses soon."""
    app.conf.worker_lost_wait = WAIT
    app.steps["worker"].add(Look)
