"""Every page at a narrow and a wide terminal, and in a pipe: whole ids, nothing cut unsaid."""

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import Connection

from db.jobs import limits, workers
from db.jobs.workers import Worker
from db.live import keys
from tests import ledger
from tests.commandline import Baton, failed
from tests.commandline import bare as bare
from tests.commandline import baton as baton
from tests.conftest import Configure

STYLE = re.compile(r"\x1b\[\d+m")
DIGITS = re.compile(r"[0-9a-f-]{8,}")
LONG = "The agent wrote a file that nobody can read, and then it went away without a word. " * 3

ACCOUNT = "an-account-that-is-named-as-a-product-names-its-customers"

Screen = Callable[..., list[str]]


@pytest.fixture
def screen(baton: Baton, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Screen:
    """`screen(60, "jobs")`: the lines that a terminal of that width shows."""

    def show(width: int, *command: str) -> list[str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(width))
        ran = baton(*command)
        assert ran.err == ""
        return [STYLE.sub("", line) for line in ran.out.splitlines()]

    return show


def everything(conn: Connection) -> tuple[str, str]:
    """Rows of every kind, with long names and sentences; a job and a session of them."""
    workers.report(
        conn, Worker("celery@a-host-with-a-long-name", "a-host", 4711, 2, None, "2.1", "abc")
    )
    limits.impose(conn, "abc", wait=timedelta(hours=1), reason="rate_limit")
    head = ledger.built(conn, project="a-shop-for-tea", raw_cost_usd=1.25).head
    assert head
    ledger.begun(conn, "chat_plan", "a-shop-for-tea", options={"branch_from": head})
    ledger.turn(conn, ledger.begun(conn, project="a-shop-for-tea"))
    ledger.ask(conn, project="a-shop-for-tea", run_at=datetime.now(UTC) + timedelta(days=1))
    job = failed(conn, LONG)
    conn.execute("update jobs set result = %s where id = %s", ('{"text": "' + LONG + '"}', job))
    killer = ledger.ask(conn, project="q")
    conn.execute(
        "update jobs set state = 'quarantined', finished_at = now(), error = %s where id = %s",
        (LONG, killer),
    )
    conn.execute(
        "insert into refused_messages (task_id, task, code, error) values (%s, %s, %s, %s)",
        ("a-task-that-nobody-knows", "tasks.biuld", "bad_input", LONG),
    )
    keys.create(
        conn, ACCOUNT, "a key with a name that says what for", ["jobs", "tickets"], None
    )
    return str(job), head


PAGES = {
    "jobs": ["jobs"], "one job": ["jobs", "JOB"], "projects": ["projects"],
    "project": ["project", "a-shop-for-tea"], "chain": ["chain", "a-shop-for-tea"],
    "branches": ["branches", "a-shop-for-tea"], "session": ["session", "SESSION"],
    "sync": ["report", "sync"], "resume": ["report", "resume"], "cost": ["report", "cost"],
    "health": ["report", "health"], "checks": ["report", "checks"], "webhooks": ["webhooks"],
    "keys": ["key", "list"], "live": ["live"], "credit": ["credit", ACCOUNT],
}  # fmt: skip


def test_every_page_fits_its_terminal(screen: Screen, conn: Connection):
    job, head = everything(conn)
    ids = {str(one) for (one,) in conn.execute("select id from jobs")}
    for name, command in PAGES.items():
        given = [{"JOB": job, "SESSION": head}.get(word, word) for word in command]
        for width in (60, 80, 100, 120, 140, 200):
            lines = screen(width, *given)
            assert lines, name
            for line in lines:
                assert len(line) <= width or len(line.split()) < 3, (name, width, line)
                for part in DIGITS.findall(line):
                    begins = any(one.startswith(part) for one in (*ids, head))
                    assert not begins or len(part) >= 8, (name, width, line)


def test_every_page_is_one_document_with_json(baton: Baton, conn: Connection):
    job, head = everything(conn)
    for command in PAGES.values():
        given = [{"JOB": job, "SESSION": head}.get(word, word) for word in command]
        ran = baton(*given, "--json")
        assert ran.document is not None, command
        assert ran.err == "", command


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_sentence_is_whole_at_a_terminal_and_in_a_pipe(
    screen: Screen, baton: Baton, conn: Connection, width: int
):
    job, _ = everything(conn)
    sentence = LONG.strip()
    assert sentence in " ".join(" ".join(screen(width, "jobs")).split())
    assert sentence in " ".join(" ".join(screen(width, "jobs", job)).split())
    told = " ".join(" ".join(screen(width, "jobs", job)).split())
    assert "result text: The agent wrote" in told
    assert "…" in told, "what is shortened says so"


def test_a_terminal_has_short_ids_and_a_pipe_whole_ones(
    screen: Screen, baton: Baton, conn: Connection
):
    job = ledger.ask(conn)
    assert str(job) in baton("jobs").out
    shown = screen(120, "jobs")
    assert any(line.startswith(f"{str(job)[:8]}  p ") for line in shown)
    assert str(job) not in "".join(shown)


def test_a_narrow_list_has_a_block_for_each_job(screen: Screen, conn: Connection):
    job = ledger.ask(conn)
    lines = screen(60, "jobs")
    assert lines[0] == f"id             {str(job)[:8]}"
    assert screen(120, "jobs")[2].startswith(f"{str(job)[:8]}  p        build  queued      0  ")


def test_a_list_that_goes_on_says_how(screen: Screen, conn: Connection):
    first = ledger.ask(conn)
    ledger.ask(conn, project="q")
    assert screen(120, "jobs", "--limit", "1")[-1] == (
        f"There may be more: add `--after {str(first)[:8]}`."
    )
    assert screen(120, "projects", "--limit", "1")[-1] == "There may be more: add `--after p`."
