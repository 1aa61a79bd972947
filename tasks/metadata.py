"""Describe a version: recommendations, then documentation. Each moves the head at once.

A failure here hurts nothing of the build: its version stands, and the chain goes on.
"""

import stat
from dataclasses import replace
from pathlib import Path

from config.settings import settings
from db.core.pool import connection
from db.jobs.lanes import MAIN
from db.projects import projects
from worker.agent import Turn, answers
from worker.agent.answers import Recommendations
from worker.failures.errors import AgentFailed, BadRequest, NotWhole
from worker.job.attempt import Attempt
from worker.job.commit import Outcome
from worker.job.delivery import does
from worker.job.legs import Work, conclude
from worker.job.step import Step
from worker.job.turn import run_turn
from worker.process import fence
from worker.session import prompts
from worker.session.digest import DOCUMENTATION
from worker.workspace.trees import write_whole


@does("metadata")
def do_metadata(at: Attempt) -> None:
    """Both steps; one that is committed already is not run again."""
    version = version_of(at)
    if "recommendations" not in at.done:
        _recommend(at, version)
    _document(at, version)


def version_of(at: Attempt) -> str | None:
    """The version that the job is about: its own, else the project's newest; a branch has none."""
    if at.job.lane != MAIN:
        return None
    if at.job.version_id:
        return at.job.version_id
    with connection() as conn:
        newest = projects.latest_version(conn, at.job.project_id)
    return newest.version_id if newest else None


def _recommend(at: Attempt, version: str | None) -> None:
    turn = _answered(
        at,
        Step(
            name="recommendations",
            prompt=prompts.render("recommendations", tool=answers.NAME),
            mode="read",
            schema=Recommendations.model_json_schema(),
            model=settings().metadata_model or None,
            accept=_validated,
        ),
    )
    found = _validated(turn)
    conclude(
        at,
        turn,
        Outcome(
            step="recommendations",
            source="metadata",
            version=version,
            final=False,
            result={"recommendations": found.model_dump()},
        ),
    )


def _answered(at: Attempt, step: Step) -> Turn:
    """An agent that answered in words is asked once more, by the way that the CLI enforces."""
    try:
        return run_turn(at, step)
    except AgentFailed as exc:
        if exc.kind != answers.MISSING:
            raise
    again = prompts.render("recommendations", tool=answers.ENFORCED)
    return run_turn(at, replace(step, prompt=again, enforced=True))


def _validated(turn: Turn) -> Recommendations:
    return answers.validated(turn.structured, turn.text)


def _document(at: Attempt, version: str | None) -> None:
    work = Work(at)
    path = at.cwd / DOCUMENTATION
    if path.is_dir() and not path.is_symlink():
        raise BadRequest(f"{DOCUMENTATION} is a directory in the workspace: move it away.")
    before = _file(path)
    turn = work.run(
        Step(
            name="documentation",
            prompt=prompts.render("documentation"),
            model=settings().metadata_model or None,
            accept=lambda turn: _documented(path, turn, before),
        )
    )
    if _file(path) is None and before is None:
        _write_answer(path, turn)
    work.take_in()
    work.commit(
        turn,
        Outcome(
            step="documentation",
            source="metadata",
            version=version,
            result={"documentation": DOCUMENTATION},
        ),
    )


def _file(path: Path) -> tuple[int, int, int] | None:
    """What tells the file from what it was before; None if it is none. Its mode may be any."""
    try:
        found = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _documented(path: Path, turn: Turn, before: tuple[int, int, int] | None) -> None:
    """The agent wrote the file, or found nothing to change in it, or answered with its text."""
    if _file(path) is None and before is None and not turn.text.strip():
        raise NotWhole("The agent wrote no documentation.")


def _write_answer(path: Path, turn: Turn) -> None:
    """The agent answered with the documentation."""
    fence.check()
    write_whole(path, turn.text.rstrip() + "\n")  # in the place of a link, not through it
