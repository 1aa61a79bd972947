"""The project's files around an attempt's turns: brought here, made ready, put aside."""

from dataclasses import replace

from db.core.pool import connection
from db.projects import projects
from worker.job import job_events
from worker.job.attempt import Attempt
from worker.process import crash_points
from worker.workspace import leftovers, workspace


def provide(at: Attempt) -> None:
    """Bring the project's files here as the ledger has them; tell what had to make way."""
    if leftovers.doubtful(at.job.project_id, at.job.tree):
        with connection() as conn:
            leftovers.clear(conn, at.job.project_id)

    def committed(tree: str) -> bool:
        with connection() as conn:
            return projects.has_tree(conn, at.job.project_id, tree)

    for ref in workspace.provide(at.job, committed=committed):
        _tell_kept_aside(at, ref)


def make_ready(at: Attempt) -> workspace.AsFound:
    """Make the workspace ready to be written; tell what a lost attempt left there."""
    left = at.left if at.left and not at.left.lost else None
    after = left.begun.attempt if left else None
    begun = at.begun = workspace.begin(at.job, at.cwd, after=after)
    if left and not begun.went_on:
        at.left = replace(left, lost="workspace_elsewhere")
    crash_points.reach("workspace.begun")
    _tell_kept_aside(at, begun.kept_aside)
    return begun


def go_back(at: Attempt) -> None:
    """What was gone on from is of no use after all: its files are put aside as well."""
    if at.begun:
        _tell_kept_aside(at, workspace.go_back(at.job, at.begun))


def _tell_kept_aside(at: Attempt, ref: str | None) -> None:
    if ref:
        at.tell(job_events.kept_aside(at.job, ref))
