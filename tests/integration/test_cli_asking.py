"""Asking for work at the command line, and waiting for it."""

import json
import re
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import Connection

from db.jobs import listing
from db.jobs.listing import Wanted
from tests import ledger
from tests.commandline import BATON, Baton
from tests.commandline import bare as bare
from tests.commandline import baton as baton
from tests.commandline import checkout as checkout
from tests.commandline import environment as environment
from tests.commandline import program as program
from tests.waiting import wait_until


def test_a_job_that_was_asked_for_is_printed_for_scripts(baton: Baton, conn: Connection):
    asked = "--project", "p", "--user", "u", "--prompt", "x", "--key", "k"
    first = baton("enqueue", "build", *asked)
    job_id, kind, state = first.out.split()
    assert (kind, state) == ("build", "queued")
    again = baton("enqueue", "build", *asked, "--json").document
    assert (again["id"], again["state"], again["key"]) == (job_id, "queued", "k")
    assert ledger.one(conn, "select count(*) from jobs") == 1
    other = baton("enqueue", "build", *asked[:4], "--prompt", "y", "--key", "k")
    assert (other.code, "was used for another request" in other.err) == (1, True)


def test_what_a_request_may_say_reaches_the_ledger(baton: Baton, conn: Connection):
    given = {
        "--max-turns": "7", "--budget": "0.25", "--priority": "3", "--model": "small",
        "--version-id": "v9", "--previous-session": str(uuid4()),
    }  # fmt: skip
    options = [word for pair in given.items() for word in pair]
    asked = baton(
        "enqueue", "chat-plan", "--project", "p", "--user", "u", "--prompt", "x", *options
    )
    job = listing.jobs(conn, Wanted())[0]
    assert asked.code == 0
    assert job.kind == "chat_plan"
    assert (job.args["max_turns"], job.args["budget"], job.args["model"]) == (7, 0.25, "small")
    assert (job.priority, job.version_id) == (3, "v9")
    assert job.previous_session_id == given["--previous-session"]


def test_a_prompt_comes_from_stdin_word_for_word(program: Baton, conn: Connection, dsn: str):
    prompt = "Größer!\n\t$HOME `id` --json '\"\n"
    asked = "enqueue", "build", "--project", "p", "--user", "u", "--prompt", "-"
    assert program(*asked, stdin=prompt.encode(), DATABASE_URL=dsn).code == 0
    assert ledger.one(conn, "select args ->> 'prompt' from jobs") == prompt
    assert program(*asked, stdin=b"\xff\xfe", DATABASE_URL=dsn).code == 2
    refused = program(*asked, stdin=b"x" * 11, DATABASE_URL=dsn, BATON_PROMPT_LIMIT="10")
    assert (refused.code, "11 bytes and the limit is 10" in refused.err) == (1, True)


def test_waiting_follows_the_chain_to_its_end(
    environment: dict[str, str], checkout: Path, conn: Connection, dsn: str, redis_url: str
):
    with _waiting(environment, checkout, dsn, redis_url) as running:
        build = wait_until(lambda: listing.jobs(conn, Wanted()), description="the request")[0]
        following = ledger.next_job("compaction")
        claimed = ledger.claim(conn, build.id)
        assert claimed
        ledger.commit(conn, claimed, following=following)
        last = ledger.claim(conn, following.id)
        assert last
        ledger.finish(conn, last)
        out, err = running.communicate(timeout=100)
    lines = [re.sub(r" +", " ", line[11:]) for line in out.splitlines()]
    assert running.returncode == 0
    assert err == ""
    assert out.startswith(f"{build.id}  build  queued\n"), "the id at once"
    assert "build started on host" in lines
    assert lines[-1].endswith("has ended: build done, compaction done.")


@pytest.mark.parametrize("lost", ["failed", "cancelled"])
def test_waiting_for_a_chain_that_is_not_done_fails(
    environment: dict[str, str],
    checkout: Path,
    conn: Connection,
    dsn: str,
    lost: str,
):
    unreachable = "redis://127.0.0.1:1/0"  # progress is lost then, and nothing else
    with _waiting(environment, checkout, dsn, unreachable, "--json") as running:
        build = wait_until(lambda: listing.jobs(conn, Wanted()), description="the request")[0]
        claimed = ledger.claim(conn, build.id)
        assert claimed
        following = ledger.next_job("compaction")
        ledger.commit(conn, claimed, following=following)
        last = ledger.claim(conn, following.id)
        assert last
        ledger.finish(conn, last, lost)
        out, err = running.communicate(timeout=100)
    assert running.returncode == 1
    document = json.loads(out)
    assert [job["state"] for job in document["jobs"]] == ["done", lost]
    assert not document["ok"]
    assert err.splitlines()[-1].startswith(f"The compaction {following.id} is {lost}")


def _waiting(
    environment: dict[str, str], checkout: Path, dsn: str, redis_url: str, *more: str
) -> "subprocess.Popen[str]":
    asked = "--project", "p", "--user", "u", "--prompt", "x", "--wait"
    return subprocess.Popen(
        [BATON, "enqueue", "build", *asked, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"DATABASE_URL": dsn, "REDIS_URL": redis_url},
        cwd=checkout,
    )


def test_checks_and_repairs_are_asked_for_at_the_command_line(
    baton: Baton, conn: Connection, tmp_path: Path
):
    whose = ("--project", "p", "--user", "u")
    two = baton("enqueue", "build", *whose, "--prompt", "x", "--check", "a | b", "--check", "c")
    assert two.code == 0, two.err
    none = baton(
        "enqueue", "update", *whose, "--prompt", "x", "--no-check", "--check-tries", "0"
    )
    assert none.code == 0, none.err
    (log := tmp_path / "deploy.log").write_bytes(b"it \xff broke\x00" + b"!" * 60_000)
    repair = baton("enqueue", "repair", *whose, "--error-file", str(log))
    assert repair.code == 0, repair.err
    args = [row[0] for row in conn.execute("select args from jobs order by pos").fetchall()]
    assert [one.get("check") for one in args] == [["a | b", "c"], [], None]
    assert (args[1]["check_tries"], args[2]["asked"]) == (0, "repair")
    assert args[2]["prompt"].startswith("it \ufffd broke\ufffd!")
    assert len(args[2]["prompt"]) < 41_000
    for words, code, said in (
        ((*whose, "--prompt", "x", "--check", "a", "--no-check"), 2, "--no-check"),
        ((*whose, "--error-file", str(tmp_path / "none")), 2, "cannot be read"),
    ):
        kind = "build" if "--prompt" in words else "repair"
        refused = baton("enqueue", kind, *words)
        assert (refused.code, said in refused.err) == (code, True), refused.err


def test_a_project_is_given_a_check_and_shows_it(baton: Baton, conn: Connection):
    ledger.built(conn)
    assert baton("project", "p", "--check", "npm test").code == 0
    assert "npm test" in baton("project", "p").out
    assert baton("project", "p", "--json").document["check"] == ["npm test"]
    refused = baton("project", "p", "--check", " ", "--json")
    assert (refused.code, refused.document["error"]["field"]) == (1, "check")
    assert baton("project", "p", "--no-check").code == 0
    assert baton("project", "p", "--json").document["check"] is None
    assert baton("report", "checks").code == 0
