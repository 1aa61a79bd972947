"""Lists at the command line: filters, paging, and rows that hold what nobody expects."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from psycopg import Connection

from db.jobs import listing
from db.jobs.listing import Wanted
from tests import ledger
from tests.commandline import Baton, failed
from tests.commandline import bare as bare
from tests.commandline import baton as baton
from tests.counting import reading

AGO = "update jobs set finished_at = now() - interval '2 d' where id = %s"


def listed(baton: Baton, *more: str) -> list[str]:
    return [one["id"] for one in baton("jobs", "--json", *more).document]


def test_jobs_are_listed_by_project_user_state_kind_and_time(baton: Baton, conn: Connection):
    done = str(ledger.built(conn).id)
    update = str(ledger.ask(conn, "update"))
    chat = str(ledger.ask(conn, "chat_plan", project="q", user_id="ann"))
    broken = failed(conn, "It broke.")
    conn.execute(AGO, (broken,))
    assert listed(baton) == [update, chat, done, str(broken)], "what is open first"
    assert listed(baton, "--project", "q") == [chat]
    assert listed(baton, "--user", "ann") == [chat]
    assert listed(baton, "--state", "failed", "--state", "done") == [done, str(broken)]
    assert listed(baton, "--state", "queued", "--project", "p") == [update]
    assert listed(baton, "--kind", "update") == [update]
    assert listed(baton, "--kind", "build", "--kind", "chat-plan") == [chat, done, str(broken)]
    assert listed(baton, "--since", "1d") == [update, chat, done]
    yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    assert listed(baton, "--since", yesterday) == [update, chat, done]
    assert listed(baton, "--since", "5d", "--state", "failed") == [str(broken)]
    repair = str(ledger.ask(conn, "repair", error="It broke."))
    assert listed(baton, "--kind", "repair") == [repair]
    assert listed(baton, "--kind", "update", "--kind", "repair") == [update, repair]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("jobs", "--project", "nosuch"), 1, "Project nosuch is unknown"),
        (("jobs", "--user", "nobody"), 1, "User nobody has no project and no job"),
        (("projects", "--user", "nobody"), 1, "User nobody has no project and no job"),
        (("report", "cost", "--project", "nosuch"), 1, "Project nosuch is unknown"),
        (("report", "sync", "--project", "nosuch"), 2, "leave --project out"),
        (("jobs", "--state", "lost"), 2, "'queued'"),
        (("jobs", "--since", "whenever"), 2, "neither a length of time"),
        (("jobs", "1a2b3c4d", "--project", "p"), 2, "not both"),
        (("jobs", "--watch", "--json"), 2, "leave --json out"),
        (("jobs", "--state", "x", "--json"), 2, "is not one of"),
        (("jobs", "--limit", "0", "--json"), 2, "greater than"),
        (("jobs", "--nosuch", "--json"), 2, "No such option"),
        (("nosuch", "--json"), 2, "No such command"),
        (("key", "create"), 2, "Say whose key it is"),
        (("key", "create", "--account", "a", "--scope", "all"), 2, "no scope all"),
        (("key", "revoke"), 2, "Say which one"),
        (("key", "revoke", "7"), 1, "no key of that number"),
        (("key", "create", "--account", "a", "--name", "\udcff"), 1, "not UTF-8"),
        (("open", "nosuch"), 1, "say whose it will be"),
        (("open", "a b/c", "--user", "ann"), 1, "The project id must be"),
        (("open", "p", "--user", "ünï"), 1, "The user id must be"),
        (("open", "p", "--user", "_template"), 1, "are reserved"),
        (("credit", "a", "--unlimited", "--add", "1"), 2, "Give one of"),
        (("jobs", "--after", "1a2b3c4d"), 1, "There is no job"),
        (("branches", "nosuch"), 1, "Project nosuch is unknown"),
        (("diff", "nosuch"), 1, "Project nosuch is unknown"),
        (("promote", "nosuch", "x"), 1, "Project nosuch is unknown"),
        (("delete", "user", "nobody"), 1, "nothing of user nobody"),
    ],
)
def test_what_is_asked_about_must_be_known(
    baton: Baton, arguments: tuple[str, ...], code: int, said: str
):
    ran = baton(*arguments)
    assert (ran.code, ran.err.count("\n")) == (code, 1)
    assert said in ran.err
    assert (
        "--json" in arguments and ran.document["error"]["code"] == "wrong_usage"
    ) or not ran.out


def test_nothing_of_a_known_project_is_an_empty_list(baton: Baton, conn: Connection):
    ledger.built(conn)
    assert baton("jobs", "--project", "p", "--state", "failed").out == "No job is like that.\n"
    assert baton("jobs", "--user", "u", "--state", "failed", "--json").document == []
    assert baton("report", "cost", "--project", "p").code == 0


@pytest.mark.parametrize("limit", [1, 3, 4])
def test_pages_hold_every_job_once(conn: Connection, limit: int):
    for n in range(4):
        ledger.ask(conn, project=f"p{n % 2}")
        ledger.built(conn, project=f"q{n}")
    conn.execute("update jobs set finished_at = '2026-01-01Z' where finished_at is not null")
    every = listing.jobs(conn, Wanted(limit=100))
    assert len(every) == 8
    found, after = list[Any](), None
    while page := listing.jobs(conn, Wanted(limit=limit, after=after)):
        found += page
        after = page[-1].place
    assert found == every


def test_a_page_behind_a_job_that_ended_goes_on_where_it_stood(conn: Connection):
    jobs = [ledger.ask(conn, project=f"p{n}") for n in range(3)]
    conn.execute(
        "update jobs set state = 'done', finished_at = now() where id = %s", (jobs[0],)
    )
    page = listing.jobs(conn, Wanted(states=("queued",), after=listing.place(conn, jobs[0])))
    assert [job.id for job in page] == jobs[1:]


def test_projects_are_listed_with_what_they_have_open(baton: Baton, conn: Connection):
    head = ledger.built(conn, project="built").head
    ledger.ask(conn, project="asked")
    ledger.begun(conn, project="runs", user_id="ann")
    rows = {row["project_id"]: row for row in baton("projects", "--json").document}
    assert list(rows) == ["asked", "built", "runs"]
    assert rows["built"]["last_ai_session_id"] == head
    assert (rows["asked"]["queued"], rows["runs"]["running"]) == (1, 1)

    def ids(*more: str) -> list[str]:
        return [row["project_id"] for row in baton("projects", "--json", *more).document]

    assert ids("--open") == ["asked", "runs"]
    assert ids("--user", "ann") == ["runs"]
    assert ids("--limit", "1", "--after", "asked") == ["built"]
    assert ids("--since", "1h") == ["built"]
    assert "built" in baton("projects").out


ODD = {
    "infinity": "infinity (!)",
    "-infinity": "-infinity (!)",
    "20000-01-01Z": "20000-01-01 00:00:00+00 (!)",
    "0044-03-15Z BC": "0044-03-15 00:00:00+00 BC (!)",
}
COMMANDS = [
    ("jobs",), ("projects",), ("report", "sync"), ("report", "resume"), ("report", "cost"),
    ("report", "health"), ("project", "p0"), ("chain", "p1"), ("branches", "p2"),
]  # fmt: skip


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_no_moment_blinds_a_report(baton: Baton, conn: Connection, zone: str):
    conn.execute(f"alter database {conn.info.dbname} set timezone to '{zone}'".encode())
    fine, odd = ledger.ask(conn, project="fine"), dict[str, str]()
    for n, moment in enumerate(ODD):
        ledger.built(conn, project=f"p{n}")
        odd[moment] = str(_with(conn, f"p{n}", moment))
    for command in (*COMMANDS, *(("jobs", job) for job in odd.values())):
        ran = baton(*command)
        assert (ran.code, ran.err) == (0, ""), command
    document = {one["id"]: one for one in baton("jobs", "--json").document}
    out = baton("jobs").out
    assert str(fine) in out
    for moment, job in odd.items():
        assert document[job]["created_at"].startswith(moment.removesuffix("Z")[:10].strip())
        assert zone != "UTC" or ODD[moment] in out
    json.loads(baton("report", "health", "--json").out, parse_constant=pytest.fail)


def _with(conn: Connection, project: str, moment: str) -> UUID:
    """A job that is open, and all else of the project, with that moment in every place."""
    job = ledger.ask(conn, project=project)
    for table, column, where in (
        ("jobs", "created_at", f"id = '{job}'"),
        ("projects", "last_ai_session_updated_at", f"project_id = '{project}'"),
        ("session_transitions", "created_at", f"project_id = '{project}'"),
        ("project_ai_session_metrics", "created_at", f"project_id = '{project}'"),
        ("project_versions", "created_at", f"project_id = '{project}'"),
    ):
        conn.execute(f"update {table} set {column} = '{moment}' where {where}".encode())
    return job


def test_a_job_put_off_for_ever_says_so(baton: Baton, conn: Connection):
    job = ledger.ask(conn)
    conn.execute("update jobs set run_at = '9999-01-01Z'")  # as migration 0020 leaves infinity
    told = baton("jobs", str(job), "--json").document["waits"]
    assert "put off for good: `baton cancel" in told["sentence"]
    assert baton("cancel", str(job)).code == 0


def test_no_data_blinds_a_report(baton: Baton, conn: Connection):
    odd = "args = '[1]'", "args = '\"x\"'", "result = '[1, {}]'", "result = '{\"a\": null}'"
    jobs = [failed(conn, "\x1b[2J\n") for _ in odd]
    for job, change in zip(jobs, odd, strict=True):
        conn.execute(f"update jobs set {change} where id = '{job}'".encode())
    conn.execute("update turns set cost_usd = 'NaN'")
    for command in (("jobs",), *(("jobs", str(job)) for job in jobs), ("report", "cost")):
        assert baton(*command).code == 0
        json.loads(baton(*command, "--json").out, parse_constant=pytest.fail)


def test_what_an_earlier_attempt_ran_as_is_not_shown(baton: Baton, conn: Connection):
    job = ledger.begun(conn)
    conn.execute("update jobs set agent_pid = 815")
    assert "worker pid: 4711" in baton("jobs", str(job.id)).out
    conn.execute(
        "update jobs set state = 'queued', lease_until = null, run_at = now() + interval '1 h'"
    )
    out = baton("jobs", str(job.id)).out
    assert "4711" not in out
    assert "815" not in out
    assert baton("jobs", str(job.id), "--json").document["agent_pid"] is None


def test_a_result_is_shown_as_people_read_it(baton: Baton, conn: Connection):
    job = ledger.built(conn)
    conn.execute(
        """
        update jobs set result = '{"text": "It is built.", "files_created": ["a.txt", "b.txt"]}'
        """
    )
    out = baton("jobs", str(job.id)).out
    assert "result: text: It is built., files_created: 2 (a.txt, b.txt)\n" in out


def test_a_project_without_a_session_begins_its_first(baton: Baton, conn: Connection):
    ledger.ask(conn)
    out = baton("project", "p").out
    assert "session: none yet" in out
    assert "next turn: begins the first session" in out


def test_more_time_is_not_less_by_a_negative_share(baton: Baton, conn: Connection):
    ledger.built(conn, raw_cost_usd=1.0, duration_ms=1000)
    ledger.commit(conn, ledger.begun(conn), raw_cost_usd=1.5, duration_ms=1211)
    out = baton("report", "cost").out
    assert "costs 50.0 % less and takes 21.1 % more time than" in out


def test_a_list_of_jobs_reads_what_it_shows(conn: Connection):
    """With the indexes that there are: what has ended is read from the newest on."""
    conn.execute(
        """
        insert into jobs (id, chain_id, project_id, user_id, kind, state, finished_at)
        select id, id, 'p' || n, 'u', 'build', 'done', now() - n * interval '1 s'
          from (select gen_random_uuid() as id, n from generate_series(1, 20000) n) made
        """
    )
    conn.execute("vacuum analyze jobs")
    with reading(conn) as read:
        page = listing.jobs(conn, Wanted(limit=20))
        behind = listing.jobs(conn, Wanted(limit=20, after=page[-1].place))
    assert len({job.id for job in [*page, *behind]}) == 40
    assert read.rows < 200, "of 20000"
