"""`baton` as a program: its errors, its exit codes, its screen, and what it finds."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import Connection

from dev.stack.services import note, services
from tests import ledger
from tests.commandline import BATON, NOWHERE, Baton, Ran, failed, on_a_terminal
from tests.commandline import bare as bare
from tests.commandline import baton as baton
from tests.commandline import checkout as checkout
from tests.commandline import environment as environment
from tests.commandline import program as program

BOX_DRAWING = re.compile("[\u2500-\u257f]")
HOSTILE = "\x1b]0;taken\x07 [red]loud[/red] \u202egnp.exe"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "`baton --help` lists the commands"),
        (("juggle",), 2, "No such command 'juggle'"),
        (("jobs", "--loud"), 2, "--loud: see `baton jobs --help`"),
        (("jobs", "not-an-id"), 2, "not-an-id"),
        (("cancel", "1234"), 2, "1234"),
        (("session", "xyz"), 2, "xyz"),
        (("project", "p", "--rewind", "x"), 2, "x"),
        (
            ("project", "p", "--fresh", "--unlock"),
            2,
            "one of --fresh, --rewind, --unlock, --import",
        ),
        (("enqueue", "cake", "--project", "p", "--user", "u"), 2, "'chat-plan'"),
        (("enqueue", "build", "--user", "u"), 2, "--project"),
        (("enqueue", "build", "--project", "p", "--user", "u", "--busy", "shout"), 2, "shout"),
        (("enqueue", "build", "--project", "p", "--user", "u", "--budget", "nan"), 2, "USD"),
        (("report", "weather"), 2, "'sync'"),
        (("jobs",), 1, "set DATABASE_URL, or start `baton up`"),
    ],
)
def test_an_error_is_one_sentence_and_nothing_else(
    bare: Baton, arguments: tuple[str, ...], code: int, said: str
):
    ran = bare(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_the_program_ends_with_the_code_and_without_a_traceback(program: Baton):
    assert program() == Ran(2, "", "Say what to do: `baton --help` lists the commands.\n")
    ran = program("jobs", DATABASE_URL=NOWHERE)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert program("--help").code == 0


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"DATABASE_URL": NOWHERE}, "Postgres does not answer at DATABASE_URL"),
        ({"DATABASE_URL": "what is this"}, "DATABASE_URL is not usable"),
        ({"DATABASE_URL": NOWHERE, "BATON_LEASE": "soon"}, "BATON_LEASE is not usable"),
    ],
)
def test_a_setting_that_cannot_work_is_named(bare: Baton, env: dict[str, str], said: str):
    ran = bare("jobs", **env)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert said in ran.err


def test_a_database_that_was_not_migrated_is_told_so_until_it_is(bare: Baton, empty_dsn: str):
    refused = bare("jobs", DATABASE_URL=empty_dsn)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.endswith("run `baton migrate`.\n")
    assert bare("migrate", DATABASE_URL=empty_dsn).out.startswith("applied 0001_")
    assert bare("--json", "migrate", DATABASE_URL=empty_dsn).document == {"applied": []}
    assert bare("jobs", DATABASE_URL=empty_dsn).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobs", str(uuid4())), "There is no job"),
        (("cancel", str(uuid4())), "There is no job"),
        (("retry", str(uuid4())), "There is no job"),
        (("chain", "nowhere"), "Project nowhere is unknown"),
        (("project", "nowhere", "--fresh"), "Project nowhere is unknown"),
        (("session", str(uuid4())), "is unknown"),
        (("enqueue", "update", "--project", "q", "--user", "u", "--prompt", "x"), "unknown"),
        (("enqueue", "build", "--project", "q", "--user", "u"), "The prompt is empty"),
        (("enqueue", "build", "--project", "../q", "--user", "u", "--prompt", "x"), "project"),
    ],
)
def test_what_is_unknown_or_refused_is_a_failure(
    baton: Baton, arguments: tuple[str, ...], said: str
):
    ran = baton(*arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert said in ran.err


def test_a_reader_that_goes_away_is_no_accident(
    environment: dict[str, str], checkout: Path, conn: Connection, dsn: str
):
    for n in range(400):
        ledger.ask(conn, project=f"p{n}")
    with subprocess.Popen(
        [BATON, "jobs", "--limit", "1000", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | {"DATABASE_URL": dsn},
        cwd=checkout,
    ) as running:
        assert running.stdout
        assert running.stderr
        assert running.stdout.read(10)
        running.stdout.close()
        assert running.stderr.read() == b""


def test_the_services_of_the_checkout_are_found_from_any_of_its_folders(
    program: Baton, checkout: Path
):
    (checkout / "docs").mkdir()
    with services(checkout) as running:
        assert program("migrate", cwd=checkout / "docs").code == 0
        found = dict(line.split("=", 1) for line in program("env").out.splitlines())
        assert found == {
            "DATABASE_URL": running.database_url,
            "REDIS_URL": running.redis_url,
            "CELERY_BROKER_URL": running.plain_broker_url,
        }
        note(checkout, replace(running, model_url="http://127.0.0.1:9"))
        asked = program("enqueue", "build", "--project", "p", "--user", "u", "--prompt", "x")
        assert asked.code == 0
        assert asked.err.startswith(
            "The model here is a stand-in: its answers are scripted, and"
        )
        elsewhere = program("env", "--json", cwd=checkout.parent, DATABASE_URL=NOWHERE).document
        assert elsewhere["DATABASE_URL"] == NOWHERE, "what the environment names goes before"
        assert not elsewhere["REDIS_URL"], "and is not mixed with what runs here"
    assert program("jobs").err.startswith("No database"), "what has stopped is not found"


def test_a_pipe_gets_plain_lines(baton: Baton, conn: Connection):
    failed(conn, "It broke. " * 40)
    out = baton("jobs").out + baton("report", "health").out + baton("jobs", "--help").out
    assert "\x1b" not in out
    assert not BOX_DRAWING.search(out)
    line = next(line for line in out.splitlines() if "It broke." in line)
    assert len(line) > 200, "nothing is wrapped"


def test_text_of_others_steers_no_terminal(
    baton: Baton, environment: dict[str, str], checkout: Path, conn: Connection, dsn: str
):
    job = failed(conn, HOSTILE)
    seen = baton("jobs", str(job)).out
    assert r"error: \x1b]0;taken\x07 [red]loud[/red] \u202egnp.exe" in seen
    screen = on_a_terminal(["jobs", str(job)], environment | {"DATABASE_URL": dsn}, checkout)
    assert "\x1b]0;" not in screen
    assert "\u202e" not in screen
    assert "[red]loud[/red]" in screen, "no markup is read in it"


def test_a_terminal_gets_tables(
    environment: dict[str, str], checkout: Path, conn: Connection, dsn: str
):
    ledger.ask(conn)
    screen = on_a_terminal(["jobs"], environment | {"DATABASE_URL": dsn}, checkout)
    assert BOX_DRAWING.search(screen)
    assert "\x1b[34mqueued" in screen


def test_json_is_one_document_wherever_it_is_asked_for(baton: Baton, conn: Connection):
    job = ledger.ask(conn)
    before, after = baton("--json", "jobs"), baton("jobs", "--json")
    assert before.out == after.out
    assert [one["id"] for one in after.document] == [str(job)]
    for command in (
        ("project", "p"), ("chain", "p"), ("report", "sync"), ("report", "resume"),
        ("report", "cost"), ("report", "health"), ("migrate",),
    ):  # fmt: skip
        assert baton("--json", *command).document is not None


def test_doctor_says_a_line_a_check_and_fails_if_one_does(
    program: Baton, dsn: str, redis_url: str
):
    there = {"DATABASE_URL": dsn, "REDIS_URL": redis_url}
    ill = program("doctor", **there)
    assert (ill.code, ill.err) == (1, "")
    assert "fail  workers: none was heard of" in ill.out
    assert {line.split()[0] for line in ill.out.splitlines()} <= {"ok", "warn", "fail"}
    found = program("doctor", "--json", **there).document
    assert not found["ok"]
    failed = [one["name"] for one in found["checks"] if one["state"] == "fail"]
    assert failed == ["workers", "relay"]
