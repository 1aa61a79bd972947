"""Baton's worker, with an agent that costs nothing for projects named `cheap-…`.

    celery -A tests.faults.transport.cheap_worker worker

Everything else is the product's, and every other project has the real CLI. Each run of
the cheap agent is a line in `RUNS` in the worker's directory: what the ledger says of
turns is held against that. A prompt may tell the agent how to behave:

    pause 1.5        think for so long
    kill the child   SIGKILL the pool's process that runs it
    kill the worker  SIGKILL the worker itself, and then that process

The last two only as long as there is a file `POISON` beside those lines. Once there is a file
`DEAF` the worker takes no message any more, and answers as if all were well.
"""

import json
import os
import re
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from celery.signals import worker_ready

from dev.agents.scripted import scripted
from worker.agent import Request, Turn, Watch
from worker.agent.claude import claude
from worker.agent.store import JobStore
from worker.app import app
from worker.broker.queues import PLAIN, QUEUE
from worker.job import delivery
from worker.job.run import run

__all__ = ["app"]

CHEAP = "cheap-"
RUNS = "runs.jsonl"
POISON = "poison"
DEAF = "deaf"
_quick = scripted(says='{"summary": "none", "recommendations": []}')


def agent(request: Request, *, store: JobStore, watch: Watch) -> Turn:
    """The real agent, or for a cheap project the scripted one."""
    if not request.cwd.name.startswith(CHEAP):
        return claude(request, store=store, watch=watch)
    with Path(RUNS).open("a") as runs:
        runs.write(json.dumps({"project": request.cwd.name, "prompt": request.prompt}) + "\n")
    _behave(request.prompt)
    return _quick(request, store=store, watch=watch)


def _behave(prompt: str) -> None:
    if told := re.search(r"^pause ([\d.]+)$", prompt, re.MULTILINE):
        time.sleep(float(told[1]))
    if "kill the " not in prompt or not Path(POISON).exists():
        return
    if "kill the worker" in prompt:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@worker_ready.connect
def _go_deaf(sender: Any, **_: object) -> None:
    """Once it is told to."""

    def wait() -> None:
        while not Path(DEAF).exists():
            time.sleep(0.1)
        Path(DEAF).unlink()  # the next worker hears
        for queue in (QUEUE, PLAIN):
            sender.call_soon(sender.cancel_task_queue, queue)

    threading.Thread(target=wait, daemon=True).start()


setattr(delivery, "run", partial(run, agent=agent))  # noqa: B010  (its type is a function's)
