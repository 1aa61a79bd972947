"""Directories of projects as this host has them. Whose one is, Postgres says (db/functions/places.sql);
what it cannot see is where a path leads, and whether it is there."""

from pathlib import Path

from psycopg import Connection

from config.settings import asking
from db.core import product_rules
from db.jobs.attempts import Claimed
from db.jobs.lanes import MAIN
from db.projects import projects
from db.projects.projects import Place
from worker.failures.errors import BadRequest
from worker.failures.refused import BadWorkspace
from worker.workspace import workspace


def resolved(given: str | None) -> str | None:
    """The path without the symlinks that this host sees in it: as others are compared with it.

    What is no path that Postgres would take is left as it is: Postgres has the sentence.
    """
    if not given or "\x00" in given or str(path := Path(given)) != given or ".." in path.parts:
        return given
    return str(path.resolve()) if path.is_absolute() and workspace.is_there(path) else given


def are_here() -> bool:
    """Whether this host has workspaces; where it has none the worker will look."""
    return asking().workspaces.is_dir() or "workspaces" in asking().model_fields_set


def check_asked(project_id: str, given: str | None, known: Place | None) -> None:
    """Raises BadWorkspace if the workspace will not do on this host, where it has workspaces.

    `known` is the project's own, if it has one already.
    """
    if not are_here():
        return
    default = asking().workspaces / project_id
    if project_id in (".", "..") or "/" in project_id:
        return  # no name of a directory: Postgres has the sentence
    try:
        if known and known.workspace:
            path = workspace.place_of(
                project_id, known.workspace, kept=known.kept, head=known.head
            )
        else:
            path = Path(given) if given else default
            workspace.check_place(path)
    except BadRequest as exc:
        raise BadWorkspace(str(exc), field="workspace") from exc
    comes = path == default or (known and asking().workspace_remote)
    if not workspace.is_there(path) and not comes:  # the default one is made, or made again
        raise BadWorkspace(
            f"The workspace {path} is missing: create the directory, or restore it.",
            field="workspace",
        )


def check_own(conn: Connection, job: Claimed, path: Path) -> bool:
    """Raises BadRequest if the job's directory is, on this host, really another project's.

    Returns, of the same look, whether a table has a rule that is not Baton's
    (db/sessions/rehearsal.py). No agent has begun by then. Two projects may have come to one directory before requests were
    held to this, or by a symlink that somebody put there.
    """
    real, root = path.resolve(), asking().workspaces.resolve()
    if job.lane == MAIN and real.is_relative_to(root):
        theirs, strange = projects.looked_at(conn, job.project_id, *_spelt(real, root))
    else:
        branch = root / workspace.BRANCHES / job.project_id / job.lane
        theirs, strange = job.lane == MAIN or real != branch, product_rules.strange(conn)
    if theirs:
        raise BadRequest(
            f"The workspace {path} is another project's too: an operator gives one of them"
            " another place (projects.workspace)."
        )
    return strange


def shared(conn: Connection, path: Path) -> bool:
    """Whether a project that is left has its workspace at this path, inside it or around it. A
    link is looked at as itself, since that is what would be removed."""
    return _taken(conn, path.parent.resolve() / path.name, beside="")


def _taken(conn: Connection, real: Path, *, beside: str) -> bool:
    """Whether a path without links is that of a project other than `beside`, or of none at all."""
    root = asking().workspaces.resolve()
    if not real.is_relative_to(root):
        return True
    return projects.place_refused(conn, beside, *_spelt(real, root))


def _spelt(real: Path, root: Path) -> tuple[str, list[str]]:
    """Where it is below the root of workspaces, and how this host spells that root."""
    return str(real.relative_to(root)), [str(root), str(asking().workspaces)]
