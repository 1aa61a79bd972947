"""Workers for the bench: Baton's own tasks with an agent that does nothing.

    whole    build → metadata (2 turns) → compaction, as the product does them
    ledger   three jobs of one turn each that touch no file: claims, fences, sessions, commits, events
             and messages are all there, the workspace is not

BENCH_BATON says which.
"""

import asyncio
import os
from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import UUID

from celery.app.task import Task

from dev.agents.scripted import scripted
from tasks.build import do_build
from tasks.chat_plan import do_chat_plan
from tasks.compaction import do_compaction
from tasks.metadata import do_metadata
from worker.agent import Agent
from worker.app import app
from worker.job.attempt import Attempt
from worker.job.commit import Outcome
from worker.job.delivery import show
from worker.job.legs import conclude
from worker.job.run import run
from worker.job.step import Step
from worker.job.turn import run_turn

ANSWER = '{"summary": "none", "recommendations": []}'
SOURCES = {"build": "build", "metadata": "metadata", "compaction": "compact"}


def do_ledger(at: Attempt) -> None:
    """One turn that reads only, and its commit."""
    kind = at.job.kind
    turn = run_turn(at, Step(name=kind, prompt="go", mode="read"))
    version = str(at.job.chain_id)
    new = kind == "build"
    conclude(
        at, turn, Outcome(step=kind, source=SOURCES[kind], version=version, new_version=new)
    )


WHOLE: dict[str, Callable[[Attempt], None]] = {
    "build": do_build,
    "metadata": do_metadata,
    "compaction": do_compaction,
    "chat_plan": do_chat_plan,
}
LEDGER = {**dict.fromkeys(SOURCES, do_ledger), "chat_plan": do_chat_plan}
DOES = LEDGER if os.environ.get("BENCH_BATON") == "ledger" else WHOLE


@cache
def agent() -> Agent:
    """One a pool child, made in it: its loop is not the parent's."""
    return scripted(says=ANSWER, runs=asyncio.Runner().run)


def _task(kind: str) -> None:
    def work(self: Task[Any, Any], job_id: str, **_: object) -> None:
        show(self, run(UUID(job_id), DOES[kind], agent=agent()))

    app.task(name=f"tasks.{kind}", bind=True)(work)


app.conf.include = []
app.finalize()
for name in DOES:
    app.tasks.pop(f"tasks.{name}", None)
    _task(name)
