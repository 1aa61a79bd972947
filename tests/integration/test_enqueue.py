"""Asking for work: in the asker's transaction, once a key, refused with a sentence."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row

from db.core import events, ledger_settings
from db.core.codes import refusal
from db.jobs import outbox
from tests.conftest import Configure
from tests.ledger import (
    advance,
    ask,
    at_once,
    begun,
    blocked,
    built,
    claim,
    contents,
    finish,
    job_row,
    one,
    turn,
    types,
)
from tests.waiting import wait_until
from worker.client import (
    Build,
    ChatPlan,
    Compaction,
    Metadata,
    Refused,
    Update,
    chain,
    enqueue,
    enqueue_async,
    job,
    latest_version,
    wait,
)

BUILD = Build(project="p", user="u", prompt="make it")
HOSTILE = """'; drop table jobs; -- "x" \\ %s {} $$ 日本 \U0001f600 </script>\n\t\r"""


BAD: list[tuple[Any, str]] = [
    (Update(project="new", user="u", prompt="x"), "Project new is unknown: begin it with"),
    (Metadata(project="new", user="u"), "Project new is unknown"),
    (Compaction(project="new", user="u"), "Project new is unknown"),
    (Build(project="known", user="thief", prompt="x"), "Project known cannot be had here"),
    (ChatPlan(project="known", user="thief", prompt="x"), "Project known cannot be had here"),
    (Update(project="known", user="thief", prompt="x"), "Project known is unknown"),
    (Build(project="p", user="u"), "The prompt is empty"),
    (Build(project="p", user="u", prompt=""), "The prompt is empty"),
    (Build(project="p", user="u", prompt=" \n\t\x0b\u00a0\u200b\u3000"), "The prompt is empty"),
    (ChatPlan(project="p", user="u", prompt=" "), "The prompt is empty"),
    (
        Build(project="p", user="u", prompt="é" * 100_001),
        "200002 bytes and the limit is 200000",
    ),
    (Build(project="p", user="u", prompt="a\x00b"), "holds a NUL"),
    (Build(project="p\x00", user="u", prompt="a"), "holds a NUL"),
    (Build(project="p", user="u", prompt="a", previous_session_id="\x00"), "holds a NUL"),
    (Build(project="p", user="u", prompt="a", workspace="/\x00"), "holds a NUL"),
    (Build(project="p", user="u", prompt="a\ud800"), "not UTF-8"),
    (Build(project="", user="u", prompt="x"), "The project id must be 1 to 200"),
    (Build(project="../up", user="u", prompt="x"), "The project id must be"),
    (Build(project="p\n", user="u", prompt="x"), "The project id must be"),
    (Build(project="p'; --", user="u", prompt="x"), "The project id must be"),
    (Build(project="p" * 201, user="u", prompt="x"), "The project id must be"),
    (Build(project="p", user="", prompt="x"), "The user id must be"),
    (Build(project="p", user="a b", prompt="x"), "The user id must be"),
    (Build(project="p", user="u", prompt="x", version="a/b"), "The version id must be"),
    (Build(project="p", user="u", prompt="x", key=""), "The key must be 1 to 200"),
    (Build(project="p", user="u", prompt="x", key="k" * 201), "The key must be 1 to 200"),
    (
        Build(project="p", user="u", prompt="x", previous_session_id="../../etc/passwd"),
        "The previous session id is not a UUID",
    ),
    (Build(project="p", user="u", prompt="x", max_turns=0), "max_turns must be a whole"),
    (Build(project="p", user="u", prompt="x", max_turns=10**30), "max_turns must be a whole"),
    (Build(project="p", user="u", prompt="x", budget="-1"), "budget must be an amount"),  # pyright: ignore[reportArgumentType]
    (Build(project="p", user="u", prompt="x", model="a b"), "model must be the name"),
    (Build(project="p", user="u", prompt="x", model="m" * 20_000), "larger than 16 kB"),
    (
        Build(project="p", user="u", prompt="x", priority=10**12),
        "priority must be a whole number from -1000000",
    ),
    (
        Build(project="p", user="u", prompt="x", run_at=datetime(2030, 1, 1)),  # noqa: DTZ001
        "run_at has no time zone",
    ),
    (Build(project="p", user="u", prompt="x", workspace="here"), "must be an absolute path"),
    (Build(project="p", user="u", prompt="x", workspace="/a/../b"), "absolute path without"),
]
BAD_BY_SQL: list[tuple[dict[str, Any], str]] = [
    ({"kind": "destroy"}, "Unknown kind of job"),
    ({"kind": None}, "Unknown kind of job"),
    ({"busy": "maybe"}, "busy must be"),
    ({"busy": None}, "busy must be"),
    ({"project": None}, "The project id must be"),
    ({"user_id": None}, "The user id must be"),
    ({"prompt": None}, "The prompt is empty"),
    ({"prompt": "x" * 200_001, "prompt_limit": None}, "the limit is 200000"),
    ({"options": {"max_turns": "x"}}, "max_turns must be a whole number"),
    ({"options": {"max_turns": "5"}}, "max_turns must be a whole number"),
    ({"options": {"max_turns": None}}, "max_turns must be a whole number"),
    ({"options": {"max_turns": 1.5}}, "max_turns must be a whole number"),
    ({"options": {"max_turns": [1]}}, "max_turns must be a whole number"),
    ({"options": {"max_turns": 1, "budget": "x"}}, "budget must be an amount"),
    ({"options": {"budget": 0}}, "budget must be an amount"),
    ({"options": {"model": 5}}, "model must be"),
    ({"options": {"model": None}}, "model must be"),
    ({"options": {"model": "--dangerous"}}, "model must be"),
    ({"options": {"on_lost": ["ask"]}}, "on_lost must be"),
    ({"options": {"workspace": 7}}, "absolute path"),
    ({"options": {"workspace": "relative/path"}}, "absolute path"),
    ({"options": {"workspace": "/"}}, "absolute path"),
    ({"options": {"workspace": "/a//b"}}, "absolute path"),
    ({"options": {"workspace": "/a/./b"}}, "absolute path"),
    ({"options": {"hooks": {}}}, "Unknown option hooks"),
    ({"options": {"x" * 20_000: 1}}, "larger than 16 kB"),
]


@pytest.fixture
def root(tmp_path: Path, configure: Configure, conn: Connection) -> Path:
    """The directory of workspaces of this host, as a worker has told the ledger."""
    place = tmp_path / "spaces"
    place.mkdir()
    configure(BATON_WORKSPACES=str(place))
    ledger_settings.tell(conn)
    return place


def test_a_job_is_there_when_its_transaction_commits_and_not_before(conn: Connection, dsn: str):
    with psycopg.connect(dsn) as producer:
        asked = enqueue(producer, BUILD)
        assert job(conn, asked.id) is None
        assert one(conn, "select count(*) from projects") == 0
    found = job(conn, asked.id)
    assert found
    assert (found.kind, found.state, found.chain_id, found.args["prompt"]) == (
        "build",
        "queued",
        asked.id,
        "make it",
    )


def test_a_rollback_leaves_nothing(conn: Connection, dsn: str):
    before = contents(conn)
    with psycopg.connect(dsn) as producer:
        enqueue(producer, BUILD)  # the first thing in its transaction
        producer.rollback()
    assert contents(conn) == before


def test_the_asynchronous_twin_does_the_same(conn: Connection, dsn: str):
    async def produce(ask_for: Build, *, keep: bool) -> UUID:
        async with await AsyncConnection.connect(dsn) as producer:
            asked = await enqueue_async(producer, ask_for)
            if not keep:
                await producer.rollback()
            return asked.id

    lost = asyncio.run(produce(BUILD, keep=False))
    kept = asyncio.run(produce(BUILD, keep=True))
    assert job(conn, lost) is None
    assert job(conn, kept)
    with pytest.raises(Refused, match="The prompt is empty"):
        asyncio.run(produce(Build(project="p", user="u", prompt=" "), keep=True))


def test_a_producers_own_way_of_reading_rows_is_no_hindrance(dsn: str):
    with Connection[Any].connect(dsn, row_factory=dict_row) as producer:
        assert enqueue(producer, BUILD).state == "queued"
        assert enqueue(producer, BUILD).state == "queued"


def test_producers_in_other_languages_ask_by_sql(conn: Connection):
    asked = one(conn, "select baton_enqueue('chat-plan', 'p', 'u', 'what?', key => 'k')")
    assert job_row(conn, asked, "kind, state, key") == ("chat_plan", "queued", "k")


def test_the_same_key_and_body_is_the_same_job(conn: Connection):
    first = enqueue(conn, BUILD.model_copy(update={"key": "k"}))
    assert enqueue(conn, BUILD.model_copy(update={"key": "k"})).id == first.id
    assert enqueue(conn, Build(project="q", user="u", prompt="make it", key="k")).id != first.id
    assert ask(conn, key="k") == first.id


def test_a_key_with_another_body_is_refused(conn: Connection):
    enqueue(conn, BUILD.model_copy(update={"key": "k"}))
    before = contents(conn)
    for other in ({"prompt": "other"}, {"version": "v"}, {"model": "opus"}):
        with pytest.raises(Refused, match="used for another request"):
            enqueue(conn, BUILD.model_copy(update={"key": "k", **other}))
    assert contents(conn) == before


def test_a_key_that_eight_send_at_once_is_one_job(conn: Connection, dsn: str):
    found = at_once(dsn, lambda own: ask(own, key="k"))
    assert set(found) == {one(conn, "select id from jobs")}


def test_a_key_holds_while_its_first_asker_is_undecided(conn: Connection, dsn: str):
    ask(conn)
    with psycopg.connect(dsn) as first, ThreadPoolExecutor() as threads:
        lost = ask(first, key="k")
        second = threads.submit(ask, conn, key="k")
        with psycopg.connect(dsn, autocommit=True) as looker:
            wait_until(lambda: blocked(looker), description="the second asker waits")
        first.rollback()
        assert second.result(10) != lost


def test_a_message_that_comes_again_is_the_same_job(conn: Connection):
    message = uuid4()
    assert enqueue(conn, BUILD, job_id=message).id == message
    assert enqueue(conn, BUILD, job_id=message).id == message
    assert one(conn, "select count(*) from jobs") == 1


def test_a_message_under_anothers_id_does_not_get_that_ones_job(conn: Connection):
    theirs = enqueue(conn, BUILD).id
    for other in (
        Build(project="mine", user="me", prompt="make it"),
        Build(project="p", user="u", prompt="another"),
    ):
        with pytest.raises(Refused, match="used for another request"):
            enqueue(conn, other, job_id=theirs)
    assert one(conn, "select count(*) from projects") == 1


@pytest.mark.parametrize("kind", [Build, ChatPlan])
def test_the_first_build_or_chat_creates_the_project(conn: Connection, kind: Any):
    enqueue(conn, kind(project="p", user="u", prompt="x"))
    assert conn.execute("select project_id, user_id from projects").fetchall() == [("p", "u")]


def test_eight_that_create_one_project_create_it_once(conn: Connection, dsn: str):
    found = at_once(dsn, lambda own: ask(own))
    assert len(set(found)) == 8
    assert one(conn, "select count(*) from projects") == 1
    assert one(conn, "select count(*) from jobs") == 8


def test_two_users_who_create_one_project_are_one_owner_and_one_refusal(dsn: str):
    def one_of_two(own: Connection) -> UUID:
        return ask(own, user_id=f"user{own.info.backend_pid}")

    found = at_once(dsn, one_of_two, 2)
    refused = [answer for answer in found if isinstance(answer, psycopg.Error)]
    assert len(refused) == 1
    assert "cannot be had here" in str(refused[0])


def test_bad_input_is_refused_with_a_sentence_and_nothing_is_written(
    conn: Connection, dsn: str, subtests: pytest.Subtests
):
    ask(conn, project="known")
    before = contents(conn)
    for asked, sentence in BAD:
        with subtests.test(sentence), psycopg.connect(dsn) as producer:
            producer.execute("create temp table of_the_producer (n int)")
            with pytest.raises(Refused, match=sentence) as refused:
                enqueue(producer, asked)
            assert one(producer, "select count(*) from of_the_producer") == 0  # it goes on
            producer.commit()
            text = str(refused.value)
            assert text.endswith(".")
            assert "\n" not in text
            assert contents(conn) == before


def test_sql_producers_get_the_same_sentences(conn: Connection, subtests: pytest.Subtests):
    before = contents(conn)
    for given, sentence in BAD_BY_SQL:
        with subtests.test(sentence):
            with pytest.raises(psycopg.Error, match=sentence) as refused:
                ask(conn, **given)
            assert refusal(refused.value)
            assert contents(conn) == before


def test_options_that_are_no_object_are_refused(conn: Connection):
    for options in ("[]", "1", '"x"', "null"):
        with pytest.raises(psycopg.Error, match="options must be a JSON object"):
            conn.execute(
                "select baton_enqueue('build', 'p', 'u', 'x', options => %s::jsonb)", (options,)
            )


def test_a_prompt_is_kept_word_for_word(conn: Connection):
    asked = enqueue(conn, Build(project="p", user="auth0|o/7", prompt=HOSTILE, key=HOSTILE))
    found = job(conn, asked.id)
    assert found
    assert (found.args["prompt"], found.key, found.user_id) == (HOSTILE, HOSTILE, "auth0|o/7")


def test_the_limit_of_a_prompt_is_a_setting(conn: Connection, configure: Configure):
    configure(BATON_PROMPT_LIMIT="10")
    with pytest.raises(Refused, match="11 bytes and the limit is 10"):
        enqueue(conn, Build(project="p", user="u", prompt="x" * 11))
    ledger_settings.tell(conn)
    configure(BATON_PROMPT_LIMIT="300000")  # here; the ledger goes by what workers have
    with pytest.raises(Refused, match="11 bytes and the limit is 10"):
        enqueue(conn, Build(project="p", user="u", prompt="x" * 11))
    ledger_settings.tell(conn)
    assert enqueue(conn, Build(project="p", user="u", prompt="x" * 250_000))


def test_a_workspace_that_will_not_do_is_refused(conn: Connection, root: Path):
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").write_text("")
    for given, sentence in {
        str(root / "missing"): "is missing: create the directory",
        str(root / "file"): "is not a directory",
        str(outside): "is outside",
        str(root): "is outside",
        str(root / "link"): "is outside",
        str(root / "link" / "deeper"): "is outside",
    }.items():
        with pytest.raises(Refused, match=sentence):
            enqueue(conn, BUILD.model_copy(update={"workspace": given}))
    assert one(conn, "select count(*) from projects") == 0


def test_a_default_place_that_leads_out_is_refused(conn: Connection, root: Path):
    (root / "p").symlink_to(root.parent)
    with pytest.raises(Refused, match="is outside"):
        enqueue(conn, BUILD)
    (root / "q").write_text("")
    with pytest.raises(Refused, match="is not a directory"):
        enqueue(conn, Build(project="q", user="u", prompt="x"))


def test_a_workspace_that_the_product_has_lost_is_told(conn: Connection, root: Path):
    conn.execute("insert into projects values ('p', 'u')")
    conn.execute("update projects set workspace = %s", (str(root / "theirs"),))
    with pytest.raises(Refused, match="is missing: create the directory, or restore it"):
        enqueue(conn, BUILD)
    (root / "theirs").mkdir()
    assert enqueue(conn, BUILD)


def test_a_default_workspace_that_was_lost_is_made_again(conn: Connection, root: Path):
    built(conn)
    assert one(conn, "select workspace from projects") == str(root / "p")
    assert not (root / "p").exists()
    assert enqueue(conn, BUILD)


def test_two_projects_do_not_share_a_workspace(conn: Connection, root: Path):
    for name in ("mine", "theirs", "theirs/deep"):
        (root / name).mkdir()
    ask(conn, project="theirs", user_id="them")
    for given in ("theirs", "theirs/deep"):
        with pytest.raises(Refused, match="workspace is not free"):
            enqueue(conn, BUILD.model_copy(update={"workspace": str(root / given)}))
    enqueue(conn, BUILD.model_copy(update={"workspace": str(root / "mine")}))
    with pytest.raises(psycopg.Error, match="workspace is not free"):
        ask(conn, project="q", options={"workspace": str(root / "mine" / "sub")})
    with pytest.raises(Refused, match="The place of project mine is not free"):
        enqueue(conn, Build(project="mine", user="me", prompt="x"))


def test_a_project_keeps_the_workspace_it_began_with(conn: Connection, root: Path):
    for name in ("a", "b"):
        (root / name).mkdir()
    first = BUILD.model_copy(update={"workspace": str(root / "a"), "key": "k"})
    asked = enqueue(conn, first)
    assert enqueue(conn, first).id == asked.id
    with pytest.raises(Refused, match="leave the workspace out"):
        enqueue(conn, BUILD.model_copy(update={"workspace": str(root / "b")}))


def test_a_producer_on_a_host_without_workspaces_asks_all_the_same(
    conn: Connection, configure: Configure
):
    configure(BATON_WORKSPACES="/srv/elsewhere")
    ledger_settings.tell(conn)  # a worker of another host
    configure(BATON_WORKSPACES=None)
    assert enqueue(conn, BUILD.model_copy(update={"workspace": "/srv/elsewhere/p"}))


def test_a_database_without_our_tables_is_told(empty_dsn: str):
    with (
        psycopg.connect(empty_dsn, autocommit=True) as empty,
        pytest.raises(Refused, match="run `baton migrate` first"),
    ):
        enqueue(empty, BUILD)


def test_a_producer_that_has_not_decided_stops_no_worker(conn: Connection, dsn: str):
    first = built(conn)
    running = begun(conn, "update")
    conn.execute("set lock_timeout = '2s'")
    with psycopg.connect(dsn) as producer:
        ask(producer, "update")
        assert advance(conn, running, turn(conn, running, "build"), old=first.head)
        assert claim(conn, ask(conn, "update"))
        held = one(
            producer,
            """
            select count(*) from pg_locks l join pg_class c on c.oid = l.relation
             where l.pid = pg_backend_pid() and c.relname = 'projects'
               and l.mode not in ('AccessShareLock', 'RowExclusiveLock')
            """,
        )
        assert held == 0


def test_asking_writes_no_event(conn: Connection):
    ask(conn)
    ask(conn)
    ask(conn, busy="replace")
    assert types(conn) == []
    assert one(conn, "select event_seq from projects") == 0


def test_busy_reject_takes_nothing_while_there_is_work(conn: Connection):
    first = ask(conn, busy="reject")
    with pytest.raises(psycopg.Error, match="The project is busy"):
        ask(conn, busy="reject")
    running = claim(conn, first)
    assert running
    with pytest.raises(psycopg.Error, match="The project is busy"):
        ask(conn, busy="reject")
    finish(conn, running, "failed")
    assert ask(conn, busy="reject")


def test_of_two_that_ask_with_reject_at_once_one_wins(conn: Connection, dsn: str):
    ask(conn, "chat_plan")
    conn.execute("update jobs set state = 'done', finished_at = now()")
    found = at_once(dsn, lambda own: ask(own, busy="reject"), 8)
    refused = [answer for answer in found if isinstance(answer, psycopg.Error)]
    assert len(refused) == 7
    assert one(conn, "select count(*) from jobs where state = 'queued'") == 1


def test_busy_replace_cancels_what_has_not_begun(conn: Connection):
    begun_one = begun(conn)
    waiting = [ask(conn) for _ in range(2)]
    conn.execute("update jobs set state = 'parked' where id = %s", (waiting[0],))
    newest = ask(conn, busy="replace")
    assert [job_row(conn, each, "state, error_class") for each in waiting] == [
        ("cancelled", "replaced")
    ] * 2
    assert job_row(conn, begun_one.id) == "running"
    assert job_row(conn, newest) == "queued"


def test_busy_replace_leaves_a_chain_that_waits_for_its_next_try(conn: Connection):
    tried = begun(conn)
    conn.execute(
        "update jobs set state = 'queued', lease_until = null where id = %s", (tried.id,)
    )
    ask(conn, busy="replace")
    assert job_row(conn, tried.id) == "queued"


def test_busy_interrupt_ends_what_waits_of_a_chain_that_has_begun(conn: Connection):
    tried, waiting = begun(conn), ask(conn)
    conn.execute(
        "update jobs set state = 'queued', lease_until = null,"
        " run_at = now() + interval '16 min' where id = %s",
        (tried.id,),
    )
    newest = ask(conn, busy="interrupt")
    assert job_row(conn, tried.id, "state, error_class") == ("cancelled", "replaced_by_request")
    assert job_row(conn, waiting, "state, error_class") == ("cancelled", "replaced")
    assert claim(conn, newest)


def test_an_interrupt_for_later_ends_what_began_before_its_time(conn: Connection):
    later = ask(conn, busy="interrupt", run_at=datetime.now(UTC) + timedelta(hours=1))
    began = begun(conn)
    conn.execute(
        "update jobs set state = 'parked', lease_until = null where id = %s", (began.id,)
    )
    outbox.look(conn)
    assert job_row(conn, began.id) == "parked", "its time has not come"
    conn.execute(
        "update jobs set run_at = now(), publish_after = now() where id = %s", (later,)
    )
    outbox.look(conn)
    assert job_row(conn, began.id, "state, error_class") == ("cancelled", "replaced_by_request")
    assert claim(conn, later)


def test_a_request_that_is_refused_replaces_nothing(conn: Connection, dsn: str):
    waiting = ask(conn)
    for bad in ({"prompt": ""}, {"user_id": "thief"}, {"kind": "x"}):
        with pytest.raises(psycopg.Error):
            ask(conn, **({"busy": "replace"} | bad))
    with psycopg.connect(dsn) as producer:
        ask(producer, busy="replace")
        producer.rollback()
    assert job_row(conn, waiting) == "queued"


def test_a_repeated_replace_does_not_cancel_itself(conn: Connection):
    first = ask(conn, busy="replace", key="k")
    assert ask(conn, busy="replace", key="k") == first
    assert job_row(conn, first) == "queued"


def test_a_job_may_be_asked_for_ahead_of_its_time(conn: Connection):
    later = datetime.now(UTC) + timedelta(hours=1)
    asked = enqueue(conn, BUILD.model_copy(update={"run_at": later}))
    assert claim(conn, asked.id) is None
    assert job_row(conn, asked.id, "run_at, publish_after") == (later, later)


def test_a_waiter_hears_of_the_end_of_the_chain(
    conn: Connection, dsn: str, configure: Configure
):
    configure(DATABASE_URL=dsn)
    running = begun(conn)
    with pytest.raises(TimeoutError, match="has not ended"):
        wait(running.id, timeout=0)
    with ThreadPoolExecutor() as threads:
        waiter = threads.submit(wait, running.id, 10)
        assert advance(conn, running, turn(conn, running))
        assert waiter.result(10).state == "done"
    with pytest.raises(LookupError, match="There is no job"):
        wait(uuid4())


def test_what_was_asked_for_is_looked_up_by_its_chain(conn: Connection):
    done = built(conn)
    assert [each.id for each in chain(conn, done.id)] == [done.id]
    version = latest_version(conn, "p")
    assert version
    assert (version.version_id, version.ai_session_id) == ("v1", done.head)
    assert latest_version(conn, "q") is None
    assert events.since(conn, "p", 0)
