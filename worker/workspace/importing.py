"""Files that were there before Baton, as the first version of a project.

Of a directory its files are taken as they lie there; of a repository (a bare one, a bundle,
or anything that git fetches from) those of its newest commit. History, configuration and
hooks of a repository are left behind, as are what its `.gitignore` names and its submodules.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from psycopg import Connection

from config.settings import settings
from db.projects import projects
from worker.failures.errors import WorkspaceAway
from worker.failures.failed import Failed
from worker.failures.refused import refusing
from worker.text.file_names import LeftOut
from worker.workspace import leftovers, transport, workspace
from worker.workspace.trees import Kept, Trees

ADDRESS = re.compile(r"(file|ssh|https?|git)://|[A-Za-z0-9][^/:]*:")
SOURCE = "refs/baton/source"


@dataclass(frozen=True, slots=True)
class Imported:
    """A project's first version: its git commit, how many files, and what was left out."""

    project_id: str
    version_id: str
    tree: str
    files: int
    left_out: list[LeftOut]


def import_place(conn: Connection, project_id: str, *, user_id: str, source: str) -> Imported:
    """Make the project with the files of `source`. Raises Failed or Refused, and
    does nothing then."""
    version = str(uuid4())
    place = str(settings().workspaces / project_id)
    with refusing():
        projects.check_import(conn, project_id, user_id=user_id, version=version)
        found = projects.get(conn, project_id)
        path = workspace.place_of(
            project_id,
            found.workspace if found else None,
            kept=bool(found and found.workspace_tree),
            head=found.last_ai_session_id if found else None,
        )
        in_place = path.resolve() == Path(source).expanduser().resolve()
        leftovers.clear(conn, project_id, files=not in_place)
        kept = _keep(project_id, version, source, path)
        projects.import_files(
            conn,
            project_id,
            user_id=user_id,
            workspace=place,
            version=version,
            tree=kept.commit,
        )
    if made := projects.get(conn, project_id):
        workspace.bring_now(conn, made)
    files = len(Trees(workspace.repository(project_id), path).names(kept.commit))
    return Imported(project_id, version, kept.commit, files, kept.left_out)


def _keep(project_id: str, version: str, source: str, path: Path) -> Kept:
    """Put the source's files into the project's repository, and to where other hosts find it."""
    here = Path(source).expanduser().absolute()
    if not here.exists() and not ADDRESS.match(source):
        raise Failed(f"There is no {here}: name a directory, or what git can fetch from.")
    if settings().workspaces.resolve().is_relative_to(here.resolve()):
        raise Failed(f"The directory {here} holds all workspaces: name one inside it.")
    if path.is_dir() and any(path.iterdir()) and path.resolve() != here.resolve():
        raise Failed(f"The workspace {path} is not empty: move its files away, or import them.")
    ours = Trees(workspace.repository(project_id), settings().workspaces)
    ours.path.mkdir(parents=True, exist_ok=True)
    ours.create()
    with tempfile.TemporaryDirectory(dir=ours.git_dir.parent, prefix="import-") as scratch:
        theirs = Trees(
            Path(scratch) / "source.git", here if _has_files(here) else Path(scratch)
        )
        theirs.create()
        kept = _read(theirs, str(here) if here.exists() else source)
        theirs.point(SOURCE, kept.commit)
        ours.fetch(str(theirs.git_dir), SOURCE)
    return transport.send(ours, project_id, version, kept, parent=None, note=_unnoted)


def _unnoted(_: str) -> None:
    """Nothing to settle: upkeep removes from the remote what the ledger does not name."""


def _read(theirs: Trees, source: str) -> Kept:
    """A commit of the source's files without a past."""
    if theirs.path == Path(source):
        return theirs.keep("imported", parent=None)
    try:
        theirs.fetch(source, f"+HEAD:{SOURCE}", "--depth=1")
    except WorkspaceAway as exc:
        raise Failed(f"Git cannot fetch from there ({exc}): check the address.") from exc
    return theirs.commit_of(SOURCE, "imported")


def _has_files(here: Path) -> bool:
    """Whether it is a directory, and not itself a repository without a working tree."""
    bare = all((here / name).exists() for name in ("HEAD", "objects", "refs"))
    return here.is_dir() and not bare
