"""Workers for the bench: Baton's own tasks with an agent that does nothing, and beside them
a plain durable Celery chain of three empty steps, for comparison."""

from typing import Any
from uuid import UUID

from celery.app.task import Task

from dev.agents.scripted import scripted
from tasks.build import do_build
from tasks.chat_plan import do_chat_plan
from tasks.compaction import do_compaction
from tasks.metadata import do_metadata
from worker.app import app
from worker.job.delivery import show
from worker.job.run import run
from worker.live.checkpoints import client

DOES = {
    "build": do_build,
    "metadata": do_metadata,
    "compaction": do_compaction,
    "chat_plan": do_chat_plan,
}
ANSWER = '{"summary": "none", "recommendations": []}'


def _task(kind: str) -> None:
    def work(self: Task[Any, Any], job_id: str, **_: object) -> None:
        show(self, run(UUID(job_id), DOES[kind], agent=scripted(says=ANSWER)))

    app.task(name=f"tasks.{kind}", bind=True)(work)


app.conf.include = []
app.finalize()
for name in DOES:
    app.tasks.pop(f"tasks.{name}", None)
    _task(name)


@app.task(name="bench.step", ignore_result=True)
def step(chain: int, number: int) -> None:
    """One empty step of a plain chain; the next is sent at its end, the last is counted."""
    if number < 3:
        app.send_task("bench.step", (chain, number + 1), ignore_result=True)
    else:
        client(0).incr("bench:done")
