"""One rule, whichever door a request comes through: the same code, field and sentence at all."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import AsyncConnection, Connection
from psycopg.types.json import Jsonb

from db.core import codes, ledger_settings, pool
from db.core.codes import CODES, Refusal, refusal
from db.operations import receipts
from tests.commandline import Baton, bare, baton
from tests.conftest import Configure
from tests.ledger import ask, contents
from worker.client import Busy, Refused, enqueue, enqueue_async
from worker.failures import refused
from worker.job.delivery import ASKS, RefusedMessage, accept

__all__ = ["bare", "baton"]
CHECKOUT = Path(__file__).parents[2]
MINE: dict[str, Any] = {"kind": "build", "project": "mine", "user": "u", "prompt": "make it"}
FAR = datetime.fromisoformat("9999-01-01T00:00:00+00:00")

# What is asked beside MINE, and the code and the field of the refusal.
CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"project": "../up"}, "bad_input", "project"),
    ({"user": "a b"}, "bad_input", "user"),
    ({"user": "_template"}, "bad_input", "user"),
    ({"prompt": " "}, "bad_input", "prompt"),
    ({"version": "a/b"}, "bad_input", "version"),
    ({"key": "k" * 201}, "bad_input", "key"),
    ({"priority": 1_000_001}, "bad_input", "priority"),
    ({"run_at": FAR}, "bad_input", "run_at"),
    ({"previous_session_id": "it"}, "bad_input", "previous_session_id"),
    ({"branch_from": "it"}, "bad_input", "branch_from"),
    ({"model": "--all"}, "bad_input", "model"),
    ({"max_turns": 0}, "bad_input", "max_turns"),
    ({"budget": 0}, "bad_input", "budget"),
    ({"budget": 10**7}, "bad_input", "budget"),
    ({"busy": "perhaps"}, "bad_input", "busy"),
    ({"on_lost": "perhaps"}, "bad_input", "on_lost"),
    ({"prompt": "x" * 200_001}, "prompt_too_long", "prompt"),
    ({"busy": "reject"}, "busy", "busy"),
    ({"key": "k", "prompt": "another"}, "key_conflict", "key"),
    ({"kind": "update", "project": "nobodys"}, "unknown_project", "project"),
    ({"kind": "update", "project": "theirs"}, "unknown_project", "project"),
    ({"project": "theirs"}, "project_unavailable", "project"),
    ({"project": "going", "user": "them"}, "project_unavailable", "project"),
    ({"project": "going"}, "being_deleted", "project"),
    ({"project": "new", "user": "hasty"}, "too_many_requests", "user"),
    ({"project": "new", "workspace": "/srv/other"}, "bad_workspace", "workspace"),
    ({"project": "new", "template": "mine"}, "bad_template", "template"),
    ({"branch_from": str(uuid4())}, "bad_branch", "branch_from"),
    ({"version": "v1"}, "bad_version", "version"),
    ({"check": " "}, "bad_input", "check"),
    ({"check": "true\x01"}, "bad_input", "check"),
    ({"check": "x" * 4001}, "bad_input", "check"),
    ({"kind": "metadata", "check": "true"}, "bad_input", "check"),
    ({"check_tries": 11}, "bad_input", "check_tries"),
    ({"on_check_failed": "perhaps"}, "bad_input", "on_check_failed"),
    ({"race": 3}, "bad_input", "race"),  # without a check
    ({"race": 1, "check": "true"}, "bad_input", "race"),
    ({"race": 9, "check": "true"}, "bad_input", "race"),
    ({"race_by": "first"}, "bad_input", "race_by"),
    ({"race": 2, "check": "true", "race_by": "perhaps"}, "bad_input", "race_by"),
    ({"race_seconds": 60}, "bad_input", "race_seconds"),
    ({"race": 2, "check": "true", "race_seconds": 60}, "bad_input", "race_seconds"),
    (
        {"race": 2, "check": "true", "race_by": "smallest", "race_seconds": 0},
        "bad_input",
        "race_seconds",
    ),
    (
        {"race": 2, "check": "true", "race_by": "cheapest", "race_seconds": 86_401},
        "bad_input",
        "race_seconds",
    ),
    ({"race": 3, "check": "true", "race_models": ["sonnet"]}, "bad_input", "race_models"),
    ({"race": 2, "check": "true", "branch_from": str(uuid4())}, "bad_branch", "race"),
    ({"race": 2, "check": "true", "project": "new"}, "bad_input", "race"),  # no session yet
    ({"kind": "metadata", "race": 2}, "bad_input", "race"),
    ({"kind": "update", "error": "it broke"}, "bad_input", "error"),
    ({"kind": "repair", "error": "it broke"}, "bad_input", "prompt"),
    ({"kind": "repair", "prompt": None, "error": " "}, "bad_input", "error"),
    ({"kind": "repair", "prompt": None, "error": "x" * 200_001}, "prompt_too_long", "prompt"),
    (
        {"kind": "repair", "prompt": None, "error": "x", "version": "v9"},
        "bad_version",
        "version",
    ),
    (
        {"kind": "repair", "prompt": None, "error": "x", "project": "theirs", "version": "v1"},
        "unknown_project",
        "project",
    ),
]
# Of the command line: what it looks at itself, and options that are named otherwise.
PARSED = {
    *("priority", "previous_session_id", "branch_from", "busy", "on_lost", "run_at"),
    *("on_check_failed", "race_by"),
}
OPTIONS = {"version": "version-id", "previous_session_id": "previous-session"}


@pytest.fixture
def ledger(conn: Connection, configure: Configure) -> Iterator[Connection]:
    """A project of u's that has work, and all that may stand in the way of more."""
    configure(BATON_WORKSPACES="/srv/spaces")
    ledger_settings.tell(conn)
    configure(BATON_WORKSPACES=None)
    ask(conn, project="mine", key="k")
    ask(conn, project="theirs", user_id="them")
    conn.execute("create unique index on project_versions (version_id)")
    conn.execute(
        "insert into project_versions (version_id, project_id) values ('v1', 'theirs')"
    )
    receipt = receipts.begin(conn, "project", "going", host="h")
    going = {"projects": {"going": None}, "owners": {"going": "u"}}
    conn.execute(
        "update deletions set todo = todo || %s where id = %s", (Jsonb(going), receipt.id)
    )
    yield conn
    pool.close()


def hurried(conn: Connection, code: str) -> None:
    """Let the user `hasty` have asked just now, if that is what is looked at."""
    conn.execute("delete from baton_settings where name = 'user_rate'")
    conn.execute("delete from user_asks")
    if code == "too_many_requests":
        conn.execute("insert into baton_settings (name, value) values ('user_rate', '1')")
        conn.execute("insert into user_asks values ('hasty', array[clock_timestamp()])")


def by_sql(dsn: str, asked: dict[str, Any]) -> Refusal | None:
    given = {"user_id" if name == "user" else name: value for name, value in asked.items()}
    try:
        with psycopg.connect(dsn) as own:
            ask(own, **given)
    except psycopg.Error as exc:
        return refusal(exc)
    return None


def by_python(dsn: str, asked: dict[str, Any]) -> Refusal | None:
    given = dict(asked)
    try:
        with psycopg.connect(dsn) as own:
            enqueue(own, ASKS[given.pop("kind")](**given))
    except Refused as exc:
        return Refusal(exc.code, str(exc), exc.field, exc.again_at)
    return None


def by_async(dsn: str, asked: dict[str, Any]) -> Refusal | None:
    given = dict(asked)

    async def produce() -> None:
        async with await AsyncConnection.connect(dsn) as own:
            await enqueue_async(own, ASKS[given.pop("kind")](**given))

    try:
        asyncio.run(produce())
    except Refused as exc:
        return Refusal(exc.code, str(exc), exc.field, exc.again_at)
    return None


def by_celery(_: str, asked: dict[str, Any]) -> Refusal | None:
    given = dict(asked)
    try:
        accept(given.pop("kind"), str(uuid4()), given)
    except RefusedMessage as exc:
        return Refusal(exc.code, str(exc), exc.field)
    return None


CHOSEN = {"on_lost", "busy", "on_check_failed", "race_by"}
# Each door, and the fields that it looks at itself, before Postgres does.
DOORS: dict[str, tuple[Callable[[str, dict[str, Any]], Refusal | None], set[str]]] = {
    "sql": (by_sql, set()),
    "python": (by_python, CHOSEN),
    "async": (by_async, CHOSEN),
    "celery": (by_celery, CHOSEN),
}


@pytest.mark.parametrize("given", [5, ["true", 3], {"a": 1}, [["true"]]], ids=str)
def test_what_is_no_shell_line_is_told_of_by_the_field_and_not_by_a_part_of_it(
    ledger: Connection, dsn: str, configure: Configure, given: object
):
    configure(DATABASE_URL=dsn)
    found = by_celery(dsn, {**MINE, "check": given})
    assert found
    assert (found.code, found.field) == ("bad_input", "check")
    assert found.sentence == "The message's check: must be a shell line, or a list of them."


@pytest.mark.parametrize("door", DOORS)
def test_every_door_refuses_alike(
    ledger: Connection, dsn: str, configure: Configure, subtests: pytest.Subtests, door: str
):
    configure(DATABASE_URL=dsn)
    by_this, itself = DOORS[door]
    for more, code, field in CASES:
        parsed = itself if "perhaps" in more.values() else set[str]()
        if parsed and door != "celery":
            continue  # no such request can be made
        with subtests.test(code, **more):
            hurried(ledger, code)
            before = contents(ledger)
            found = by_this(dsn, {**MINE, **more})
            assert found
            assert (found.code, found.field) == (code, field)
            assert found.sentence.endswith(".")
            if not parsed:
                assert found == by_sql(dsn, {**MINE, **more}) or code == "too_many_requests"
            assert contents(ledger) == before


def test_the_command_line_refuses_alike_and_says_so_to_programs(
    ledger: Connection, dsn: str, baton: Baton, subtests: pytest.Subtests
):
    for more, code, field in CASES:
        if more.keys() & PARSED and code == "bad_input":
            continue  # wrong usage: looked at before Postgres is
        if "error" in more:
            continue  # it is read from a file: test_cli_asking.py
        with subtests.test(code, **more):
            hurried(ledger, code)
            given = {**MINE, **more}
            kind = given.pop("kind")
            words = [f"--{OPTIONS.get(name, name.replace('_', '-'))}" for name in given]
            pairs = [
                f"{word}={value}" for word, value in zip(words, given.values(), strict=True)
            ]
            told = baton("enqueue", kind, *pairs, "--json")
            found = by_sql(dsn, {**MINE, **more})
            assert found
            assert told.code == 1
            assert told.document["error"]["code"] == code
            assert told.document["error"]["field"] == field
            assert told.err == f"{told.document['error']['message']}\n"
            if code != "too_many_requests":
                assert told.document["error"]["message"] == found.sentence


def test_a_refusal_is_a_class_of_its_own_with_its_code(ledger: Connection):
    with pytest.raises(Busy) as told:
        enqueue(ledger, ASKS["build"](project="mine", user="u", prompt="x", busy="reject"))
    assert (told.value.code, told.value.field) == ("busy", "busy")


def test_without_json_stdout_stays_empty_and_other_errors_have_a_code_too(
    conn: Connection, baton: Baton
):
    asked = ("enqueue", "update", "--project", "no", "--user", "u", "--prompt", "x")
    assert baton(*asked).out == ""
    assert baton("jobs", str(uuid4()), "--json").document["error"]["code"] == "failed"
    wrong = baton("enqueue", "--json")
    assert (wrong.code, wrong.document["error"]["code"]) == (2, "wrong_usage")


def test_the_codes_are_one_list_in_sql_and_in_python(conn: Connection):
    assert dict(conn.execute("select sqlstate, code from baton_refusals()").fetchall()) == CODES
    assert refused.KINDS.keys() - {"not_migrated"} == set(CODES.values())


def test_what_is_not_of_ours_is_no_refusal(conn: Connection):
    with pytest.raises(psycopg.Error) as told:
        conn.execute("select 1 / 0")
    assert codes.refusal(told.value) is None
    assert codes.refusal(ValueError("x")) is None
