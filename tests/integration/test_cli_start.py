"""A command imports what it needs for its first line, and no more: so it answers at once.

Modules are counted and not seconds, since no busy machine changes those. Each command runs
in a child of a process that has imported what all of them share.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg import Connection

from dev.stack.noted import Services
from dev.stack.services import note
from tests import ledger
from tests.commandline import BATON, failed
from tests.commandline import checkout as checkout
from tests.commandline import environment as environment
from worker.cli.command_table import COMMANDS, Commands
from worker.cli.console import app

HEAVY = {
    *("celery", "kombu", "billiard", "flower", "tornado", "claude_agent_sdk", "mcp", "anyio"),
    *("httpx", "jsonschema", "rich", "structlog", "redis", "tenacity", "psycopg_pool"),
    *("aiohttp", "yaml", "prompt_toolkit"),
}
REDIS = {"jobs of busy", "health", "delete"}  # these ask it, or clear it
MOST = (
    545  # modules; Python, typer, pydantic and psycopg are 440 of them, redis would be 60 more
)
PROBE = '''
import json, os, sys

class First:
    """Notes which modules are there when the first thing is printed."""

    encoding, seen = "utf-8", None

    def write(self, text):
        if First.seen is None and text.strip():
            First.seen = sorted(sys.modules)
        return len(text)

    def flush(self): pass
    def isatty(self): return False
    buffer = property(lambda self: self)

def run(arguments):
    """In a child, so that what it imports is forgotten."""
    ours, theirs = os.pipe()
    if not os.fork():
        sys.stdout = sys.stderr = First()
        try:
            from dev.cli import main
            sys.argv = ["baton", *arguments]
            main()
        finally:
            with os.fdopen(theirs, "w") as out:
                json.dump(First.seen, out)
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as told:
        found = json.load(told)
    os.wait()
    return found

commands = json.load(sys.stdin)
first = run(commands[0])  # before anything is shared
import psycopg, typer
from config.settings import settings
json.dump([first, *map(run, commands[1:])], sys.stdout)
'''


def modules(commands: list[list[str]], env: dict[str, str], cwd: Path) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps(commands),
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_command_imports_no_more_than_its_first_line_needs(
    environment: dict[str, str], checkout: Path, conn: Connection, dsn: str, redis_url: str
):
    head, job, waiting = (
        ledger.built(conn).head,
        str(failed(conn, "It broke.")),
        ledger.ask(conn),
    )
    assert head
    ledger.begun(conn, project="busy")
    request = ["--project", "q", "--user", "u", "--prompt", "x"]
    commands = {
        "help": ["--help"], "version": ["--version"], "migrate": ["migrate"], "env": ["env"],
        "redis-acl": ["redis-acl"],
        "enqueue": ["enqueue", "build", *request], "jobs": ["jobs", "--project", "p"],
        "a job": ["jobs", job], "jobs that failed": ["jobs", "--state", "failed"],
        "jobs of busy": ["jobs", "--project", "busy"], "retry": ["retry", job],
        "cancel": ["cancel", str(waiting)], "answer": ["answer", job, "retry"],
        "projects": ["projects"], "project": ["project", "p"],
        "unlock": ["project", "p", "--unlock"], "rewind": ["project", "p", "--rewind", head],
        "import": ["project", "n", "--user", "u", "--import", "/nowhere"],
        "chain": ["chain", "p"], "branches": ["branches", "p"], "promote": ["promote", "p", "x"],
        "diff": ["diff", "p"], "session": ["session", head],
        "import-session": ["import-session", "p", "/nowhere", "--user", "u"],
        "sync": ["report", "sync"], "resume": ["report", "resume"], "cost": ["report", "cost"],
        "health": ["report", "health"], "doctor": ["doctor"],
        "key": ["key", "list"], "credit": ["credit", "acme"], "open": ["open", "p"],
        "live": ["live"], "webhooks": ["webhooks"],
        "delete": ["delete", "project", "p"],  # it asks, and the rest is work
    }  # fmt: skip
    assert {words[0] for words in commands.values()} >= set(COMMANDS)
    (checkout / ".baton").mkdir()
    note(checkout, Services(dsn, redis_url))  # as beside a `baton up`, which each looks for
    found = modules(list(commands.values()), environment, checkout)
    for name, seen in zip(commands, found, strict=True):
        allowed = {"redis"} if name in REDIS else set[str]()
        assert not (HEAVY - allowed) & set(seen), name
        assert len(seen) < MOST + 60 * bool(allowed), (name, len(seen))


def test_nothing_installed_is_looked_through_and_no_garbage_looked_for_before_the_first_line(
    environment: dict[str, str], checkout: Path, conn: Connection, dsn: str
):
    told = (
        "import gc\n"
        "from worker.cli import console\n"
        "before = gc.get_stats()[0]['collections']\n"
        "code = console.main(['jobs'])\n"
        "import pydantic.plugin._loader as loader\n"
        "print(code, gc.get_stats()[0]['collections'] - before, loader._plugins)\n"
    )
    ledger.ask(conn)
    done = subprocess.run(
        [sys.executable, "-c", told],
        env=environment | {"DATABASE_URL": dsn},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 0 None"


def test_help_needs_neither_settings_nor_a_database_driver(
    environment: dict[str, str], checkout: Path
):
    (seen,) = modules([["--help"]], environment, checkout)
    assert not {"pydantic", "psycopg"} & set(seen)
    assert len(seen) < 300


def test_the_table_says_of_each_command_what_its_help_says():
    group = Commands(name="baton")
    for name, (_, told) in COMMANDS.items():
        found = group.get_command(None, name)
        assert " ".join(str(found.help).split()).startswith(told.rstrip(".")), name
    assert {one.name for one in app.registered_commands} >= set(COMMANDS)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("baton proj", ["projects", "project"]),
        ("baton jobs --sta", ["--state"]),
        ("baton jobs --state q", ["queued", "quarantined"]),
        ("baton project te", ["tea", "teapots"]),
        ("baton project zzz", []),
    ],
)
def test_the_shell_completes_commands_options_states_and_projects(
    environment: dict[str, str],
    checkout: Path,
    conn: Connection,
    dsn: str,
    typed: str,
    offered: list[str],
):
    for project in ("tea", "teapots", "coffee"):
        ledger.ask(conn, project=project)
    asks = {
        "_BATON_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    done = subprocess.run(
        [BATON],
        env=environment | asks | {"DATABASE_URL": dsn},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.split(), done.stderr) == (offered, "")
