"""Projects' repositories on a server (BATON_WORKSPACE_REMOTE), beside the jobs: whether they can be
reached, and emptying one for good. No repository of this host is needed."""

import tempfile
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from psycopg import Connection

from config.settings import settings
from db.projects import trees as ledger
from worker.failures.errors import RemoteMissing, WorkspaceAway
from worker.workspace import transport
from worker.workspace.trees import Trees

OURS = "refs/baton/*"
PATIENCE = 20.0  # seconds


def on_server() -> bool:
    """Whether the projects' remote repositories are not files of this host."""
    url = settings().workspace_remote.get_secret_value()
    return bool(url) and urlsplit(url).scheme != "file"


def empty(project_id: str) -> int | None:
    """Remove all refs of ours from the project's repository on the server; how many.

    None: there is no such repository, or it is not shown to us. Raises WorkspaceAway.
    """
    url = transport.address(project_id)
    with _scratch() as trees:
        try:
            refs = trees.refs_of(url, [OURS], within=PATIENCE)
        except RemoteMissing:
            return None
        transport.remove(trees, url, list(refs))
        return len(refs)


def forget(conn: Connection, project_id: str, attempts: Collection[str]) -> int:
    """Remove what these attempts have sent, unless the ledger names it; how many refs.

    Raises WorkspaceAway.
    """
    folder = transport.folder()
    if folder and not folder.is_dir():
        raise WorkspaceAway(f"there is no directory {folder}")
    way = transport.transport(project_id)
    with _scratch() as trees:
        sent = {name: at for name, at in way.sent(trees).items() if name in attempts}
        named = ledger.named_of(conn, project_id, list(sent.values()))
        unnamed = [name for name, commit in sent.items() if commit not in named]
        way.forget(trees, unnamed)
    return len(unnamed)


def fault(conn: Connection) -> str | None:
    """What is wrong with BATON_WORKSPACE_REMOTE, with what to do; None: it can be used."""
    if not on_server():
        return _fault_of_folder()
    project_id = ledger.newest_project(conn)
    with _scratch() as trees:
        try:
            trees.refs_of(
                transport.address(project_id or "baton-doctor"), [OURS], within=PATIENCE
            )
        except RemoteMissing as exc:
            return (
                f"the server shows no repository of project {project_id} ({exc}): correct the"
                " address, let these keys read it, or make it there (`git init --bare`)."
                if project_id
                else None  # it answers, and nothing was sent yet
            )
        except WorkspaceAway as exc:
            return f"it cannot be reached ({exc}): jobs wait until it can; correct the address or the keys."
    return None


def _fault_of_folder() -> str | None:
    folder = transport.folder()
    if folder is None or not folder.is_dir():
        return f"there is no directory {folder}: make it, or mount it; jobs wait until it is there."
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as exc:
        return (
            f"{folder} cannot be written ({exc.strerror}): let the workers' user write there."
        )


@contextmanager
def _scratch() -> Generator[Trees]:
    with tempfile.TemporaryDirectory(prefix="baton-remote-") as place:
        trees = Trees(Path(place) / "none.git", Path(place))
        trees.create()
        yield trees
