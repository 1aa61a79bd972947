"""Deleting a project or a user: everything goes, nothing of others, and a receipt stays."""

import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection, sql

from config.settings import settings
from db.jobs import jobs
from db.operations import deletion, receipts, upkeep
from db.operations.deletion import Held
from db.transcripts import appends, transcripts
from tests import ledger
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.commandline import baton as baton
from tests.conftest import Configure
from tests.invariants import violations
from tests.ledger import ask, begun, blocked, built, claim, commit, finish, job_row, one, turn
from tests.waiting import wait_until
from worker.broker import publish
from worker.cleanup import deletion as deleting
from worker.client import Build, Refused, enqueue
from worker.live import checkpoints, progress
from worker.live.checkpoints import CHECKPOINTS, PROGRESS, Checkpoint, client

SECRET = "the-words-of-a-user"


@pytest.fixture(autouse=True)
def services(redis_url: str, dsn: str, configure: Configure) -> Iterator[None]:
    configure(REDIS_URL=redis_url, DATABASE_URL=dsn)
    client.cache_clear()
    yield
    client.cache_clear()


def entry() -> Any:
    return {"type": "user", "uuid": str(uuid4()), "message": {"content": SECRET}}


def fill(conn: Connection, project: str = "p", user: str = "u") -> UUID:
    """A project with something of everything; its newest chain."""
    first = commit(
        conn,
        begun(conn, project=project, user_id=user, prompt=SECRET),
        version_id="v1",
        new_version=True,
        chat=[("user", SECRET)],
        files=[SECRET],
        documentation=SECRET,
    )
    for _ in range(2):
        chat = begun(conn, "chat_plan", project, user_id=user, prompt=SECRET)
        commit(conn, chat, source="chat_plan", chat_plan=True)
        conn.execute(
            "update session_transitions set created_at = '2026-01-05Z' where job_id = %s",
            (chat.id,),
        )
    assert upkeep.archive_transitions(conn, timedelta(days=30)) == 1
    failed = begun(conn, "update", project, user_id=user, prompt=SECRET)
    for session in (first.head, turn(conn, failed)):
        appends.append(conn, project, str(session), [entry()])
    finish(conn, failed, "failed")
    conn.execute("insert into lane_ends (project_id, lane) values (%s, 'main')", (project,))
    conn.execute("insert into spent_by_day values (current_date, %s, '', 1, 1)", (project,))
    conn.execute(
        """
        insert into branches (project_id, lane, user_id, from_session, head)
        values (%s, 'branch-x', %s, 'a', 'b')
        """,
        (project, user),
    )
    conn.execute("select baton_set_check(%s, to_jsonb('true'::text))", (project,))
    conn.execute(
        """
        insert into checks (job_id, attempt, project_id, round, number, command, outcome,
                            duration_ms, output_head, output_tail, output_bytes)
        values (%s, gen_random_uuid(), %s, 0, 1, 'true', 'passed', 1, %s, '', 9)
        """,
        (failed.id, project, SECRET),
    )
    _fill_live(conn, project, user, failed.chain_id)
    _fill_outside(conn, project, failed.chain_id)
    return failed.chain_id


def _fill_live(conn: Connection, project: str, user: str, chain: UUID) -> None:
    conn.execute("insert into accounts (id) values ('acme') on conflict do nothing")
    conn.execute(
        "insert into account_projects (project_id, account_id) values (%s, 'acme')", (project,)
    )
    conn.execute(
        "insert into live_connections (conn, project_id, user_id, gateway)"
        " values (gen_random_uuid(), %s, %s, 'g')",
        (project, user),
    )
    conn.execute(
        "insert into webhooks (chain_id, project_id, user_id, url, host)"
        " values (%s, %s, %s, 'https://h/', 'h')",
        (chain, project, user),
    )


def _fill_outside(conn: Connection, project: str, chain: UUID) -> None:
    place = settings().workspaces / project
    checkpoints.save(chain, Checkpoint("s", str(chain), str(place), []))
    publish.copy(project, [{"seq": 1, "job_id": None, "type": "job.queued", "body": {}}])
    client(PROGRESS).xadd(progress.key(chain), {"body": SECRET})
    client(PROGRESS).expire(progress.key(chain), 60)
    (place / "shut" / "deep").mkdir(parents=True)
    (place / "shut" / "deep" / "a.txt").write_text(SECRET)
    (place / "shut").chmod(0)
    repository = settings().workspaces / ".trees" / f"{project}.git"
    repository.mkdir(parents=True)
    (repository / "HEAD").write_text("ref: refs/heads/main")
    minted = one(
        conn, "select minted_session_id from turns where project_id = %s limit 1", project
    )
    litter = settings().agent_home / "tmp" / minted
    litter.mkdir(parents=True)
    (litter / "s.jsonl").write_text(SECRET)


def tables(conn: Connection, column: str) -> set[str]:
    rows = conn.execute(
        """
        select table_name from information_schema.columns c join information_schema.tables t
               using (table_schema, table_name)
         where table_schema = 'public' and column_name = %s and table_type = 'BASE TABLE'
           and table_name !~ '^session_transitions_archive_'
        """,
        (column,),
    )
    return {name for (name,) in rows}


def everywhere(conn: Connection, text: str) -> dict[str, int]:
    """In how many rows of each table the text stands."""
    found = dict[str, int]()
    for (table,) in conn.execute(
        "select tablename from pg_tables where schemaname = 'public'"
    ).fetchall():
        query = sql.SQL("select count(*) from {} t where strpos(t::text, %s) > 0")
        for (n,) in conn.execute(query.format(sql.Identifier(table)), (text,)):
            found[table] = n
    return {table: n for table, n in found.items() if n}


def on_disk(text: str) -> list[str]:
    """Files and directories of ours that hold the text, or have it in their name."""
    found: list[str] = []
    for root in (settings().workspaces, settings().agent_home):
        for folder, folders, names in os.walk(root):
            found += [name for name in (*folders, *names) if text in name]
            found += [name for name in names if text in Path(folder, name).read_text()]
    return found


def in_redis() -> set[Any]:
    checkpoints_there: Any = client(CHECKPOINTS).keys()
    streams: Any = client(PROGRESS).keys()
    return {*checkpoints_there, *streams}


def test_every_table_that_says_whose_a_row_is_is_known(conn: Connection):
    assert set(deletion.TABLES) == tables(conn, "project_id")
    assert set(deletion.OF_USERS) == tables(conn, "user_id")


def test_nothing_of_a_deleted_project_is_left_and_all_of_another(
    conn: Connection, baton: Baton
):
    fill(conn, "other", "mine")
    before, keys = everywhere(conn, "other"), in_redis()
    fill(conn, "shop", "ann")
    told = baton("delete", "project", "shop", "--yes", "--json").document
    for text in ("shop", "ann"):
        assert everywhere(conn, text) == {}
    assert everywhere(conn, "other") == before
    assert in_redis() == keys
    assert on_disk("shop") == []
    assert sorted(on_disk(SECRET)) == ["a.txt", "s.jsonl"], "the other's"
    assert told["rows"]["jobs"] == 4
    assert told["rows"]["session_transitions_archive"] == 1
    assert set(told["rows"]) == set(deletion.TABLES)
    assert (told["redis_keys"], told["files"]) == (3, 3)
    assert [Path(path).name for path in told["directories_removed"]] == ["shop", "shop.git"]
    assert violations(conn) == []


def test_the_receipt_names_nobody_and_is_proved_by_who_knows_of_whom_it_is(
    conn: Connection, baton: Baton
):
    fill(conn, "shop", "ann@example.org")
    told = baton("delete", "user", "ann@example.org", "--yes", "--json").document
    row = conn.execute(
        "select id::text, digest, rows, files, keys, todo from deletions"
    ).fetchone()
    assert row
    assert row[0] == told["receipt"]
    text = f"{told['receipt']} user ann@example.org"
    assert row[1] == hashlib.sha256(text.encode()).hexdigest()
    assert row[2:] == (told["rows"], told["files"], told["redis_keys"], None)
    assert (
        everywhere(conn, "ann@") == everywhere(conn, "shop") == everywhere(conn, SECRET) == {}
    )


def test_a_user_goes_with_all_projects_and_no_other_user_does(conn: Connection, baton: Baton):
    for project, user in (("p1", "ann"), ("p2", "ann"), ("p3", "eve")):
        fill(conn, project, user)
    told = baton("delete", "user", "ann", "--yes", "--json").document
    assert told["projects"] == ["p1", "p2"]
    assert one(conn, "select string_agg(project_id, ' ') from projects") == "p3"
    assert everywhere(conn, "ann") == {}
    assert violations(conn) == []


def test_a_users_words_go_from_a_project_that_is_anothers_by_now(
    conn: Connection, baton: Baton
):
    fill(conn, "given", "ann")
    conn.execute("update projects set user_id = 'eve'")
    eves = commit(
        conn, begun(conn, "chat_plan", "given", user_id="eve"), source="chat_plan"
    ).head
    assert eves
    appends.append(conn, "given", eves, [entry() | {"message": {"content": "of eve"}}])
    moves = one(conn, "select count(*) from session_chain")
    repository = settings().workspaces / ".trees" / "given.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(repository)], check=True)
    assert baton("delete", "user", "ann", "--yes").code == 0
    assert everywhere(conn, "ann") == {}
    assert everywhere(conn, SECRET) == {}
    assert one(conn, "select count(*) from jobs") == 1
    assert one(conn, "select count(*) from session_chain") == moves
    assert one(conn, "select count(*) from transcript_entries") == 1
    assert transcripts.load(conn, "given", eves)
    assert (settings().workspaces / "given").is_dir(), "the project is another's"
    assert violations(conn) == []


def test_while_a_job_runs_nothing_is_deleted(conn: Connection, baton: Baton):
    fill(conn, "other", "u")
    job = begun(conn)
    before = ledger.contents(conn)
    for what, subject in (("project", "p"), ("user", "u")):
        refused = baton("delete", what, subject, "--yes")
        assert refused.code == 1
        assert f"Job {job.id} of project p is running: `baton cancel {job.id}`" in refused.err
    assert ledger.contents(conn) == before
    assert one(conn, "select count(*) from deletions") == 0
    assert (settings().workspaces / "other").is_dir()
    finish(conn, job, "cancelled")
    assert baton("delete", "project", "p", "--yes").code == 0


def test_a_job_that_is_claimed_just_then_is_seen(conn: Connection, dsn: str):
    waiting = ask(conn)
    receipt = receipts.begin(conn, "project", "p", host="h")
    with psycopg.connect(dsn) as worker, ThreadPoolExecutor() as threads:
        assert claim(worker, waiting)
        deleted = threads.submit(deletion.take_project, conn, receipt.id, "p", turns_here=[])
        with psycopg.connect(dsn, autocommit=True) as looker:
            wait_until(lambda: blocked(looker), description="the deletion waits")
        worker.commit()
        with pytest.raises(Held, match="is running"):
            deleted.result(10)
    assert job_row(conn, waiting) == "running"


def test_it_is_asked_for_on_purpose(conn: Connection, baton: Baton):
    fill(conn, "shop", "ann")
    refused = baton("delete", "project", "shop")
    assert (refused.code, "say --yes" in refused.err) == (2, True)
    assert one(conn, "select count(*) from projects") == 1
    assert baton("delete", "nonsense", "shop", "--yes").code == 2


def test_what_was_never_there_is_unknown_and_what_was_deleted_is_told_again(
    conn: Connection, baton: Baton
):
    for what in ("project", "user"):
        refused = baton("delete", what, "nobody", "--yes")
        assert (refused.code, "nothing was deleted" in refused.err) == (1, True)
    fill(conn, "shop", "ann")
    first = baton("delete", "project", "shop", "--yes", "--json").document
    again = baton("delete", "project", "shop", "--yes", "--json")
    assert (again.code, again.document["receipt"]) == (0, first["receipt"])
    assert again.document["deleted_before"]
    assert "it was deleted before" in baton("delete", "project", "shop").out
    assert one(conn, "select count(*) from deletions") == 1


def crash_after_the_rows(conn: Connection, project: str) -> None:
    """A deletion whose process died when the ledger's rows were gone, and nothing else."""
    receipt = receipts.begin(conn, "project", project, host="h")
    turns = [entry.name for entry in (settings().agent_home / "tmp").iterdir()]
    deletion.take_project(conn, receipt.id, project, turns_here=turns)


def test_a_deletion_that_broke_off_is_gone_on_with(conn: Connection, baton: Baton):
    fill(conn, "shop", "ann")
    crash_after_the_rows(conn, "shop")
    assert on_disk(SECRET)
    assert in_redis()
    health = baton("report", "health")
    assert "repeat `baton delete project shop`" in health.out
    with pytest.raises(Refused, match="Project shop is being deleted: ask again when"):
        enqueue(conn, Build(project="shop", user="ann", prompt="x"))
    with pytest.raises(Refused, match="Project shop cannot be had here"):
        enqueue(conn, Build(project="shop", user="eve", prompt="x"))
    shutil.rmtree(settings().workspaces / ".trees")  # it had got so far
    told = baton("delete", "project", "shop", "--yes", "--json").document
    assert told["rows"]["jobs"] == 4, "what went before the crash is in the receipt"
    assert one(conn, "select count(*) from deletions") == 1
    assert (on_disk(SECRET), on_disk("shop"), in_redis()) == ([], [], set())
    assert everywhere(conn, "shop") == {}
    assert enqueue(conn, Build(project="shop", user="eve", prompt="x"))


def test_a_users_deletion_that_broke_off_between_projects_is_gone_on_with(
    conn: Connection, baton: Baton
):
    for project in ("p1", "p2"):
        fill(conn, project, "ann")
    receipt = receipts.begin(conn, "user", "ann", host="h")
    deletion.take_project(conn, receipt.id, "p1", turns_here=[])
    told = baton("delete", "user", "ann", "--yes", "--json").document
    assert (told["receipt"], told["projects"]) == (str(receipt.id), ["p1", "p2"])
    assert told["rows"]["jobs"] == 8
    assert everywhere(conn, "ann") == {}
    assert (on_disk("p1"), on_disk("p2"), in_redis()) == ([], [], set())


def test_without_redis_nothing_is_deleted(conn: Connection, baton: Baton):
    fill(conn, "shop", "ann")
    refused = baton("delete", "project", "shop", "--yes", REDIS_URL="redis://127.0.0.1:1/0")
    assert refused.code == 1
    assert "Redis does not answer" in refused.err
    assert "nothing was deleted" in refused.err
    assert one(conn, "select count(*) from projects") == 1


def test_an_id_is_used_anew_without_anything_old(conn: Connection, baton: Baton):
    fill(conn, "shop", "ann")
    baton("delete", "project", "shop", "--yes")
    job = begun(conn, project="shop", user_id="eve", previous_session_id=str(uuid4()))
    assert job.head is None
    assert [event["seq"] for event in job.told] == [1, 2, 3]
    assert commit(conn, job, chat=[("user", "new")]).head
    publish.copy("shop", [{"seq": 1, "job_id": None, "type": "job.queued", "body": {}}])
    entries: Any = client(PROGRESS).xrange(publish.stream("shop"))
    assert [at for at, _ in entries] == ["1-0"], "the old stream had a higher number"
    assert one(conn, "select string_agg(content, '') from project_chat_log_minimal") == "new"
    assert violations(conn) == []


def test_who_asked_before_the_deletion_is_waited_for_and_goes_with_it(
    conn: Connection, dsn: str
):
    fill(conn, "shop", "ann")
    with psycopg.connect(dsn) as producer, ThreadPoolExecutor() as threads:
        job = ask(producer, "update", "shop", user_id="ann")
        deleted = threads.submit(deleting.delete, conn, "project", "shop")
        with psycopg.connect(dsn, autocommit=True) as looker:
            wait_until(
                lambda: one(looker, "select count(*) from deletions"),
                description="the deletion has begun",
            )
        assert not deleted.done()
        producer.commit()
        assert deleted.result(10).receipt.rows["jobs"] == 5
    assert jobs.get(conn, job) is None
    assert everywhere(conn, "shop") == {}


def test_who_asks_during_the_deletion_waits_for_its_rows_and_is_refused(
    conn: Connection, dsn: str
):
    """Not a moment of it leaves half of a project: the asker finds all or nothing."""
    fill(conn, "shop", "ann")
    receipt = receipts.begin(conn, "project", "shop", host="h")
    with psycopg.connect(dsn) as deleter, ThreadPoolExecutor() as threads:
        deleter.execute("select 1")  # in a transaction from here on
        deletion.take_project(deleter, receipt.id, "shop", turns_here=[])
        asked = threads.submit(enqueue, conn, Build(project="shop", user="ann", prompt="x"))
        with psycopg.connect(dsn, autocommit=True) as looker:
            wait_until(lambda: blocked(looker), description="the producer waits")
        deleter.commit()
        with pytest.raises(Refused, match="is being deleted"):
            asked.result(10)
        done = deleting.remove(deleter, receipt.id)
        assert done.receipt.ended_at
    assert enqueue(conn, Build(project="shop", user="eve", prompt="x"))
    assert everywhere(conn, "ann") == {}


def test_producers_that_never_stop_make_a_whole_project_or_are_refused(
    conn: Connection, dsn: str
):
    fill(conn, "shop", "ann")
    over = threading.Event()

    def produce() -> list[UUID | str]:
        told: list[UUID | str] = []
        with psycopg.connect(dsn, autocommit=True) as own:
            while not over.is_set():
                try:
                    told.append(enqueue(own, Build(project="shop", user="ann", prompt="x")).id)
                except Refused as exc:
                    told.append(str(exc))
        return told

    with ThreadPoolExecutor() as threads:
        producers = [threads.submit(produce) for _ in range(3)]
        wait_until(
            lambda: one(conn, "select count(*) from jobs") > 10, description="they have asked"
        )
        gone = deleting.delete(conn, "project", "shop").receipt.rows
        wait_until(
            lambda: one(conn, "select count(*) from jobs"), description="the id is used anew"
        )
        over.set()
        told = [each for producer in producers for each in producer.result(10)]
    assert {each for each in told if isinstance(each, str)} <= {
        "Project shop is being deleted: ask again when that is done."
    }
    left = {job for (job,) in conn.execute("select id from jobs")}
    assert left < {each for each in told if isinstance(each, UUID)}
    new = "select count(*) from jobs join projects using (project_id, user_id)"
    assert one(conn, new) == len(left)
    assert gone["jobs"] + len(left) == 4 + sum(isinstance(each, UUID) for each in told)
    assert everywhere(conn, SECRET) == {}
    assert violations(conn) == []


def test_a_producer_that_looks_at_the_past_adds_no_job_to_what_was_deleted(
    conn: Connection, dsn: str, baton: Baton
):
    fill(conn, "shop", "ann")
    with psycopg.connect(dsn) as producer:
        producer.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        assert one(producer, "select count(*) from projects") == 1
        baton("delete", "project", "shop", "--yes")
        with pytest.raises(psycopg.errors.SerializationFailure):
            ask(producer, "update", "shop", user_id="ann")
    assert everywhere(conn, "shop") == {}


def test_a_retry_of_a_project_that_is_being_deleted_is_refused(conn: Connection, baton: Baton):
    job = built(conn)
    receipt = receipts.begin(conn, "project", "p", host="h")
    conn.execute(
        'update deletions set todo = todo || \'{"projects": {"p": null}}\' where id = %s',
        (receipt.id,),
    )
    refused = baton("retry", str(job.id))
    assert refused.err == "Project p is being deleted: ask again when that is done.\n"


def test_of_two_deletions_at_once_one_waits_to_be_asked_again(conn: Connection, dsn: str):
    fill(conn, "shop", "ann")
    with (
        psycopg.connect(dsn, autocommit=True) as other,
        deletion.alone(other),
        pytest.raises(Held, match="Another deletion is under way"),
    ):
        deleting.delete(conn, "project", "shop")
    assert deleting.delete(conn, "project", "shop").receipt.ended_at


PRODUCT: LiteralString = """
    create table orders (id int primary key, project_id text references projects);
    insert into orders values (1, 'shop')"""


def test_a_products_own_table_that_refers_to_the_project_is_named(
    conn: Connection, baton: Baton
):
    fill(conn, "shop", "ann")
    conn.execute(PRODUCT)
    before = ledger.contents(conn)
    refused = baton("delete", "project", "shop", "--yes")
    assert refused.err == (
        "Your product's table orders refers to project shop: delete what is there first, and"
        " ask again.\n"
    )
    assert ledger.contents(conn) == before
    assert one(conn, "select count(*) from deletions") == 0
    conn.execute("delete from orders")
    assert baton("delete", "project", "shop", "--yes").code == 0


def test_directories_that_are_not_here_or_not_its_own_are_told_and_left(
    conn: Connection, baton: Baton, tmp_path: Path
):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    (settings().workspaces / "shared").mkdir(parents=True)
    linked = settings().workspaces / "linked"
    linked.symlink_to(settings().workspaces / "shared")
    places = {
        "away": settings().workspaces / "away",
        "out": outside,
        "first": settings().workspaces / "shared",
        "second": settings().workspaces / "shared",
        "link": linked,
    }
    for project, place in places.items():
        ask(conn, project=project)
        conn.execute(
            "update projects set workspace = %s where project_id = %s", (str(place), project)
        )

    def delete(project: str) -> Any:
        return baton("delete", "project", project, "--yes", "--json").document

    assert delete("away")["directories_not_on_this_host"] == [str(places["away"])]
    assert "outside of BATON_WORKSPACES" in delete("out")["directories_left"][0]["why"]
    assert "another project" in delete("first")["directories_left"][0]["why"]
    assert delete("link")["directories_removed"] == [str(linked)], "the link, not its target"
    assert places["second"].is_dir()
    assert (outside / "kept.txt").exists()
    assert delete("second")["directories_removed"] == [str(places["second"])]


def test_months_that_were_detached_and_are_still_there_count_too(
    conn: Connection, baton: Baton
):
    fill(conn, "shop", "ann")
    conn.execute(
        "alter table session_transitions_archive"
        " detach partition session_transitions_archive_2026_01"
    )
    told = baton("delete", "project", "shop", "--yes", "--json").document
    assert told["rows"]["session_transitions_archive_2026_01"] == 1
    assert everywhere(conn, "shop") == {}
