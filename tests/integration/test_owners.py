"""Whose an id is, nobody is told; and names of Baton's own are no user's."""

from itertools import combinations
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection

from config.settings import settings
from db.core.codes import Refusal, refusal
from tests.commandline import Baton, bare, baton
from tests.conftest import Configure
from tests.ledger import ask, built, job_row, one
from worker.broker import publish
from worker.client import BadInput, Build, answer, enqueue
from worker.job.delivery import RefusedMessage, accept
from worker.live import checkpoints, progress
from worker.workspace import repositories, workspace
from worker.workspace.trees import Trees

__all__ = ["bare", "baton"]


def refused(conn: Connection, kind: str = "build", project: str = "p", **more: Any) -> Refusal:
    with pytest.raises(psycopg.Error) as told:
        ask(conn, kind, project, **more)
    why = refusal(told.value)
    assert why
    return why


@pytest.mark.parametrize("kind", ["update", "metadata", "compaction"])
def test_a_foreign_project_is_answered_as_one_that_is_not_there(conn: Connection, kind: str):
    built(conn, "theirs")
    foreign = refused(conn, kind, "theirs", user_id="eve")
    unknown = refused(conn, kind, "nobodys", user_id="eve")
    assert foreign.sentence.replace("theirs", "nobodys") == unknown.sentence
    assert (foreign.code, foreign.field) == (unknown.code, unknown.field)


@pytest.mark.parametrize("kind", ["build", "chat_plan"])
def test_an_id_that_is_taken_says_neither_whose_nor_why(conn: Connection, kind: str):
    built(conn, "theirs")
    conn.execute("update projects set workspace = '/srv/secret/place'")
    conn.execute(
        """insert into deletions (id, what, host, digest, todo) values (gen_random_uuid(), 'project',
           'h', 'd', '{"projects": {"going": null}, "owners": {"going": "ann"}}')"""
    )
    taken, going = (refused(conn, kind, p, user_id="eve") for p in ("theirs", "going"))
    assert taken.sentence == "Project theirs cannot be had here: choose another id."
    assert going.sentence.replace("going", "theirs") == taken.sentence
    assert refused(conn, "update", "going", user_id="eve").code == "unknown_project"
    assert refused(conn, kind, "going", user_id="ann").code == "being_deleted"


def test_python_tells_nothing_of_a_foreign_projects_directory(
    conn: Connection, tmp_path: Path, configure: Configure
):
    configure(BATON_WORKSPACES=str(tmp_path))
    built(conn, "theirs")
    conn.execute("update projects set workspace = %s", (str(tmp_path / "missing"),))
    with pytest.raises(Exception, match="cannot be had here"):
        enqueue(conn, Build(project="theirs", user="eve", prompt="x"))


def test_foreign_sessions_keys_and_jobs_are_as_unknown(conn: Connection):
    theirs = built(conn, "theirs")
    ask(conn, project="theirs", key="k")
    ask(conn, project="mine", user_id="eve")
    for field in ("branch_from", "template"):
        foreign = theirs.head if field == "branch_from" else "theirs"
        unknown = str(uuid4()) if field == "branch_from" else "nobodys"
        told = [
            refused(conn, "chat_plan", "mine" if field == "branch_from" else "new", user_id="eve", **{field: each})
            for each in (foreign, unknown)
        ]  # fmt: skip
        assert told[0].sentence.replace(str(foreign), "") == told[1].sentence.replace(
            unknown, ""
        )
    assert ask(conn, project="mine", user_id="eve", key="k", previous_session_id=theirs.head)
    assert refused(conn, "build", "mine", user_id="eve", id=theirs.id).code == "key_conflict"


def test_an_answer_to_a_foreign_job_does_nothing(conn: Connection):
    waits = ask(conn)
    conn.execute("update jobs set state = 'parked', error_class = 'ask'")
    assert answer(conn, waits, "retry", user="eve") is False
    assert job_row(conn, waits) == "parked"
    assert answer(conn, waits, "retry", user="u") is True


def test_nobody_asks_as_a_reserved_user_but_an_operator(
    conn: Connection, dsn: str, baton: Baton, configure: Configure
):
    asked = Build(project="shops", user="_template", prompt="x")
    words = ("enqueue", "build", "--project", "shops", "--user", "_template", "--prompt", "x")
    with pytest.raises(BadInput, match="reserved"):
        enqueue(conn, asked)
    assert "reserved" in refused(conn, project="shops", user_id="_template").sentence
    assert "reserved" in baton(*words).err
    message = {"project_id": "shops", "user_id": "_template", "prompt": "x"}
    for more in ({}, {"operator": True}):
        with pytest.raises(RefusedMessage):
            accept("build", str(uuid4()), message | more)
    assert one(conn, "select count(*) from projects") == 0
    assert enqueue(conn, asked, operator=True)
    assert ask(conn, project="shops", user_id="_template", operator=True)
    assert baton(*words, "--operator").code == 0


def test_who_had_such_an_id_before_goes_on_with_what_is_theirs(conn: Connection):
    conn.execute("insert into projects (project_id, user_id) values ('old', '_ann')")
    assert ask(conn, "update", "old", user_id="_ann")
    assert "reserved" in refused(conn, project="new", user_id="_ann").sentence
    conn.execute("update projects set user_id = '_template'")
    assert "reserved" in refused(conn, project="old", user_id="_template").sentence


NASTY = (
    *(
        "upkeep",
        ".upkeep"[1:],
        "main",
        "HEAD",
        "x",
        "x.git",
        "x.lock",
        "x.branches",
        "_template",
    ),
    *("x.git.lock", "x.branches.git", "branch-x", "trees", "branches", "import-x", "new", "x-"),
)


def places(project: str) -> set[Path]:
    """Every path and key that has the project's id in it."""
    lane = f"branch-{uuid4()}"
    repository = workspace.repository(project)
    root = settings().workspaces
    keys = {Path("redis", publish.stream(project))}
    return keys | {
        root / project,
        root / workspace.BRANCHES / project,
        repository,
        repository.with_suffix(".lock"),
        workspace.branches(project),
        workspace.branches(project) / f"{lane}.git",
    }


def test_no_two_ids_share_a_path_a_lock_or_a_key():
    ours = {settings().workspaces / workspace.OURS / ".upkeep.lock"}
    ours |= {settings().workspaces / name for name in (workspace.OURS, workspace.BRANCHES)}
    ours |= {Path("redis", checkpoints.key(uuid4())), Path("redis", progress.key(uuid4()))}
    for one_id, other in combinations(dict.fromkeys(NASTY), 2):
        assert not places(one_id) & places(other), (one_id, other)
        assert not places(one_id) & ours, one_id


def test_a_project_of_the_name_of_our_upkeep_is_tended_as_any_other(
    conn: Connection, dsn: str, tmp_path: Path, configure: Configure
):
    configure(BATON_WORKSPACES=str(tmp_path), DATABASE_URL=dsn)
    built(conn, "upkeep")
    mine = Trees(workspace.repository("upkeep"), tmp_path / "upkeep")
    mine.path.mkdir()
    mine.create()
    assert repositories.run_once() == 1, "its lock is not the upkeep's own"
