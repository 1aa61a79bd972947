"""Deleting a project or a user, with all that is theirs: in the ledger, in Redis, on this host,
and where a server keeps the files for all hosts.

    rows of the ledger ──► keys in Redis ──► directories of this host ──► refs on the server
                                                              ──► the receipt is closed

The receipt is open until all is gone, and what was begun can be done again at any point.
"""

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import redis
from psycopg import Connection

from config.settings import settings
from db.operations import deletion, receipts
from db.operations.deletion import Held
from db.operations.receipts import Receipt
from worker.failures.errors import BadRequest, WorkspaceAway
from worker.live import progress
from worker.live.checkpoints import CHECKPOINTS, PROGRESS, client
from worker.live.checkpoints import key as checkpoint
from worker.workspace import remote, removal, transport, workspace
from worker.workspace.places import shared
from worker.workspace.trees import Trees

AT_ONCE = 500  # keys in one request to Redis


@dataclass(frozen=True, slots=True)
class Places:
    """Directories of a deletion: those removed, those this host has not, those left, with why."""

    removed: list[Path] = field(default_factory=list[Path])
    not_here: list[Path] = field(default_factory=list[Path])
    left: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])
    not_on_server: list[str] = field(default_factory=list[str])  # projects


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was done: the closed receipt, and what only those who asked are told."""

    receipt: Receipt
    projects: list[str]
    places: Places


def found(conn: Connection, what: str, subject: str) -> dict[str, int]:
    """Rows that there are of it, by table; of a project also its repository on this host.

    Raises Held when a job runs that would have to go too.
    """
    projects = deletion.projects_of(conn, what, subject)
    deletion.check_idle(conn, projects, subject if what == "user" else None)
    rows = deletion.found(conn, what, subject)
    if what == "project" and (repositories := _repositories(subject)):
        rows["repositories"] = len(repositories)
    return rows


def delete(conn: Connection, what: str, subject: str) -> Deleted:
    """Delete all there is of a project or a user.

    Raises Held before anything is deleted; or later, when a part of it must wait: then
    what is deleted stays so, and asking again goes on from there.
    """
    _reach_redis("nothing was deleted")
    with deletion.alone(conn):
        projects = deletion.projects_of(conn, what, subject)
        user = subject if what == "user" else None
        deletion.check_idle(conn, projects, user)
        receipt = receipts.begin(conn, what, subject, host=socket.gethostname())
        try:
            for project_id in projects:
                deletion.take_project(conn, receipt.id, project_id, turns_here=_turns_here())
            if user:
                deletion.take_user(conn, receipt.id, user)
                for project_id in deletion.projects_of(conn, what, subject):  # begun meanwhile
                    deletion.take_project(
                        conn, receipt.id, project_id, turns_here=_turns_here()
                    )
                    projects.append(project_id)
        except Held:
            receipts.withdraw(conn, receipt.id)
            raise
        return remove(conn, receipt.id)


def remove(conn: Connection, receipt_id: UUID) -> Deleted:
    """Remove the keys and directories that the receipt names, and close it."""
    from worker.broker.publish import stream
    from worker.sandbox.home import own_directory  # needs none of them
    from worker.workspace import branch_places

    todo = receipts.get(conn, receipt_id).todo or {}
    projects: dict[str, str | None] = todo.get("projects", {})
    keys = _unlink(CHECKPOINTS, [checkpoint(UUID(chain)) for chain in todo.get("chains", [])])
    keys += _unlink(PROGRESS, [progress.key(UUID(chain)) for chain in todo.get("chains", [])])
    keys += _unlink(PROGRESS, [stream(project_id) for project_id in projects])
    receipts.note_removed(conn, receipt_id, keys=keys)
    places = Places()
    for project_id, given in projects.items():
        files = _remove_workspace(conn, project_id, given, places)
        files += _remove_repositories(project_id, places)
        receipts.note_removed(conn, receipt_id, files=files)
    for project_id, lane in todo.get("branches", []):
        removed = branch_places.remove(conn, project_id, lane)
        places.removed.extend(place for place, _ in removed)
        receipts.note_removed(conn, receipt_id, files=sum(files for _, files in removed))
    files = sum(removal.remove(own_directory(UUID(turn))) for turn in todo.get("turns", []))
    receipts.note_removed(conn, receipt_id, files=files)
    for project_id in projects if remote.on_server() else ():
        _empty_remote(conn, receipt_id, project_id, places)
    _forget_sent(conn, receipt_id, todo.get("attempts", []))
    return Deleted(receipts.close(conn, receipt_id), list(projects), places)


def _reach_redis(done: str) -> None:
    try:
        client(PROGRESS).ping()
    except redis.RedisError as exc:
        away = type(exc) in (redis.ConnectionError, redis.TimeoutError)
        why = "does not answer at REDIS_URL" if away else f"refuses ({type(exc).__name__})"
        what = "start it" if away else "correct REDIS_URL, or its rights"
        raise Held(
            f"Redis {why}, and has keys to be removed: {what}, and ask again; {done}."
        ) from exc


def _unlink(database: int, names: list[str]) -> int:
    _reach_redis("the rows are deleted, the rest is not")
    gone = 0
    for start in range(0, len(names), AT_ONCE):
        found: Any = client(database).unlink(*names[start : start + AT_ONCE])
        gone += found
    return gone


def _turns_here() -> list[str]:
    """The turns of which this host has a directory: litter of workers that died."""
    scratch = settings().agent_home / "tmp"
    return [entry.name for entry in scratch.iterdir()] if scratch.is_dir() else []


def _repositories(project_id: str) -> list[Path]:
    """Where this host keeps the project's versions and branches, if its id can name a file."""
    if project_id != Path(project_id).name:
        return []
    branches = workspace.branches(project_id)
    files = settings().workspaces / workspace.BRANCHES / project_id
    repository = workspace.repository(project_id)
    places = [repository, repository.with_suffix(".lock"), branches, files]
    if remote := transport.place(project_id):
        places.append(remote)
    return [place for place in places if place.exists()]


def _remove_repositories(project_id: str, places: Places) -> int:
    """Remove them, when no upkeep is at work there; how many files they had."""
    found, files = _repositories(project_id), 0
    with ExitStack() as held:
        trees = Trees(workspace.repository(project_id), settings().workspaces)
        if trees.git_dir in found:
            held.enter_context(trees.held())
        for place in found:
            files += removal.remove(place)
            places.removed.append(place)
        if trees.git_dir in found:
            trees.git_dir.with_suffix(".lock").unlink(missing_ok=True)
    return files


def _empty_remote(conn: Connection, receipt_id: UUID, project_id: str, places: Places) -> None:
    """Raises Held while the server does not let us: the receipt stays open."""
    try:
        refs = remote.empty(project_id)
    except WorkspaceAway as exc:
        raise Held(
            f"The files of project {project_id} on the server of BATON_WORKSPACE_REMOTE are not"
            f" removed ({exc}); all else of it is. Ask again when it answers; or remove its"
            " repository there by hand, and ask again with BATON_WORKSPACE_REMOTE empty."
        ) from exc
    if refs is None:
        places.not_on_server.append(project_id)
    receipts.note_removed(conn, receipt_id, remote_refs=refs or 0)


def _forget_sent(conn: Connection, receipt_id: UUID, sent: list[list[str]]) -> None:
    """What a user's branches sent for projects of others. Raises Held as `_empty_remote`."""
    of_project: dict[str, set[str]] = {}
    for project_id, attempt in sent:
        of_project.setdefault(project_id, set()).add(attempt)
    for project_id, attempts in of_project.items():
        try:
            refs = remote.forget(conn, project_id, attempts)
        except WorkspaceAway as exc:
            raise Held(
                f"The files of the user's branches in project {project_id}, in the repository of"
                f" BATON_WORKSPACE_REMOTE, are not removed ({exc}); all else of the user is. Ask"
                " again when it answers, or with BATON_WORKSPACE_REMOTE empty if it is gone for good."
            ) from exc
        receipts.note_removed(conn, receipt_id, remote_refs=refs)


def _remove_workspace(
    conn: Connection, project_id: str, given: str | None, places: Places
) -> int:
    place = Path(given) if given else settings().workspaces / project_id
    if not os.path.lexists(place):
        places.not_here.append(place)
        return 0
    try:
        workspace.check_place(place)
    except BadRequest:
        places.left.append((place, "it is outside of BATON_WORKSPACES"))
        return 0
    if shared(conn, place):
        places.left.append((place, "another project has its workspace there"))
        return 0
    places.removed.append(place)
    return removal.remove(place)
