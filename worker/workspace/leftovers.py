"""What a host has left of a project that was deleted on another host.

Nobody told this host, and the id may be another user's by now. A closed receipt says that the id
was deleted and when (db/operations/receipts.py); a repository that was made before that, and whose head the
ledger does not have, is the old project's. It goes, with what lies beside it:

    clear   before a job of the id's next owner, or an import, looks at what is here
    sweep   by the host's own upkeep, where the ledger knows no project of that id

The repository goes last, alone with it: where it is, all that is said here holds again.
"""

import time
from datetime import UTC, datetime
from subprocess import SubprocessError

from psycopg import Connection

from config.log import log
from config.settings import settings
from db.operations import receipts
from db.projects import projects
from worker.failures.errors import JobError
from worker.workspace import places, refs, removal, workspace
from worker.workspace.trees import Trees

AT_ONCE = 1000  # projects that the ledger is asked about


def doubtful(project_id: str, tree: str | None) -> bool:
    """Whether `clear` may find something: not where the head here is what the ledger names."""
    main = _main(project_id)
    if not main.git_dir.exists():
        return False
    return not (tree and main.exist() and main.ref(refs.HEAD) == tree)


def clear(conn: Connection, project_id: str, *, files: bool = True) -> None:
    """Remove what is of an earlier project of this id, and what lies in the workspace of its
    next one unless `files` says that this is to stay. Raises BadRequest, OSError."""
    main = _main(project_id)
    if not _is_old(conn, project_id, main):
        return
    with main.held():
        if not main.git_dir.exists() or not _is_old(conn, project_id, main):
            return  # somebody was quicker
        found = projects.get(conn, project_id)
        place = workspace.place_of(
            project_id,
            found.workspace if found else None,
            kept=bool(found and found.workspace_tree),
            head=found.last_ai_session_id if found else None,
        )
        _remove(main, project_id, removal.empty(place) if files else 0)


def here() -> list[str]:
    """The projects of which this host has a repository."""
    places = (settings().workspaces / workspace.OURS).glob("*.git")
    return [place.name.removesuffix(".git") for place in places]


def sweep(conn: Connection, until: float = float("inf")) -> int:
    """Remove what is of deleted projects whose ids nobody has; returns of how many. None is
    looked for after `until` (monotonic seconds)."""
    removed, left = 0, here()
    while left and time.monotonic() < until:
        some, left = left[:AT_ONCE], left[AT_ONCE:]
        for project_id in receipts.deleted(conn, projects.unknown(conn, some)):
            try:
                removed += _swept(conn, project_id)
            except (JobError, OSError, SubprocessError) as exc:
                log.warning(
                    "deleted_project.not_removed", project_id=project_id, error=str(exc)
                )
    return removed


def _swept(conn: Connection, project_id: str) -> bool:
    main, place = _main(project_id), workspace.place_of(project_id, None, kept=False, head=None)
    with main.held_now() as alone:
        if not alone or projects.get(conn, project_id) or not _is_old(conn, project_id, main):
            return False
        files = 0 if places.shared(conn, place) else removal.remove(place)
        _remove(main, project_id, files)
        main.git_dir.with_suffix(".lock").unlink(missing_ok=True)
    return True


def _main(project_id: str) -> Trees:
    return Trees(workspace.repository(project_id), settings().workspaces)


def _is_old(conn: Connection, project_id: str, main: Trees) -> bool:
    """Whether the repository is of a project that was deleted, and no later one has used it."""
    if not main.git_dir.exists():
        return False
    head = main.ref(refs.HEAD) if main.exist() else None
    if head and projects.has_tree(conn, project_id, head):
        return False
    ended = receipts.deleted(conn, [project_id]).get(project_id)
    return ended is not None and _made(main) < ended


def _made(main: Trees) -> datetime:
    """When the repository was made: git writes this file then, and nobody does later."""
    file = main.git_dir / "config"
    at = file if file.exists() else main.git_dir  # half removed
    return datetime.fromtimestamp(at.stat().st_mtime, UTC)


def _remove(main: Trees, project_id: str, files: int) -> None:
    """Remove the branches' directories and repositories, and the project's."""
    branches = settings().workspaces / workspace.BRANCHES / project_id
    for place in (branches, workspace.branches(project_id), main.git_dir):
        files += removal.remove(place)
    log.info("deleted_project.removed", project_id=project_id, files=files)
