"""Workers for the fault suite, which die, stop or raise where they are told to (dev/faults/strikes.py).

    celery -A dev.faults.worker worker …

BATON_SCRIPTED names kinds of jobs, or how projects' names begin, whose agent is none of the
CLI's, but `dev.agents.deeds`.
"""

import os
from typing import Any
from uuid import UUID

from celery import signals

from db.core.pool import connection
from db.jobs import jobs
from dev.agents.deeds import deeds
from dev.faults import strikes
from worker.app import app
from worker.job.attempt import Attempt
from worker.job.delivery import WORK, Do

__all__ = ["app"]

_scripted = tuple(filter(None, os.environ.get("BATON_SCRIPTED", "").split(",")))


@signals.task_prerun.connect
def _note_project(kwargs: dict[str, Any] | None = None, **_: Any) -> None:
    given = kwargs or {}
    strikes.begin_work("")
    if "project_id" in given:
        strikes.begin_work(str(given["project_id"]))
    elif "job_id" in given:
        with connection() as conn:
            job = jobs.get(conn, UUID(str(given["job_id"])))
        strikes.begin_work(job.project_id if job else "")


def _with_deeds(do: Do) -> Do:
    """The same, with the agent of dev/agents/deeds.py where that is wanted."""

    def work(at: Attempt) -> None:
        if at.job.kind in _scripted or at.job.project_id.startswith(_scripted):
            at.agent = deeds(strikes.PLACE / "deeds")
        do(at)

    return work


app.finalize()
app.loader.import_default_modules()
WORK.update({kind: _with_deeds(do) for kind, do in WORK.items()})
