"""Another Baton: beside a product's own tables, resuming off, plain messages off, two beats, and no
egress proxy of its host.

The chain here is short on purpose of what the settings say: no session is ever resumed,
compaction is only for what is large, and a checkpoint lives for two seconds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
import psycopg
import pytest

from dev.stack.procfile import read_procfile
from tests.acceptance.conftest import looked_after
from tests.acceptance.outside import Baton, Row, baton_up
from tests.waiting import wait_until
from worker.client import Build, ChatPlan, Refused, Update, chain

FIRST = "write index.html: <h1>One</h1>"
SECOND = "Make the header blue, please."
TTL = 2  # seconds
PRODUCT = """
create table projects (
    project_id text primary key,
    user_id    text not null,
    name       text not null,
    plan       jsonb not null default '{"seats": 3}',
    created_at timestamptz not null default '2024-01-01'
);
create table project_versions (
    id         serial primary key,
    project_id text not null references projects,
    version_id text not null unique,
    label      text not null,
    created_at timestamptz not null default now()
);
insert into projects (project_id, user_id, name)
values ('shop', 'ann', 'The shop'), ('quiet', 'eve', 'Never touched'),
       ('asked', 'ann', 'Only asked about');
insert into project_versions (project_id, version_id, label) values ('shop', 'v1', 'First');
"""
THEIRS = "select project_id, user_id, name, plan, created_at from projects order by 1"


@dataclass(frozen=True)
class Told:
    build: UUID
    update: UUID
    checkpoints: list[tuple[str | None, int]]  # while the build's chain ran
    before: list[Row]


@pytest.fixture(scope="module")
def other(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baton]:
    name, root = f"product_{uuid4().hex}", tmp_path_factory.mktemp("other")
    url = f"{postgres.rpartition('/')[0]}/{name}"
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute(f"create database {name}".encode())
    with psycopg.connect(url) as conn:
        conn.execute(PRODUCT)
    beat = read_procfile(root)["beat"]
    with baton_up(
        root,
        commands={**read_procfile(root), "beat2": beat, "egress": "sleep 1000"},
        DATABASE_URL=url,
        BATON_RESUME_ENABLED="false",
        BATON_PLAIN_CELERY="off",
        BATON_CHECKPOINT_TTL=str(TTL),
        BATON_UPKEEP_EVERY="2",
    ) as baton:
        yield baton


@pytest.fixture(scope="module")
def told(other: Baton) -> Told:
    before = other.rows(THEIRS)
    checkpoints: list[tuple[str | None, int]] = []
    other.model.fault("slow", when="recommendations for what to do next", pace=0.12)
    build = other.ask(Build(project="shop", user="ann", prompt=FIRST, version="v1"))
    other.over(build)
    other.ended(build, meanwhile=_reader(other, build, checkpoints))
    other.conn.execute(
        "insert into project_versions (project_id, version_id, label)"
        " values ('shop', 'v2', 'Second')"
    )
    update = other.ask(Update(project="shop", user="ann", prompt=SECOND, version="v2"))
    other.ended(update)
    return Told(build, update, checkpoints, before)


@pytest.fixture
def baton(other: Baton, monkeypatch: pytest.MonkeyPatch) -> Iterator[Baton]:
    yield from looked_after(other, monkeypatch)


def _reader(
    baton: Baton, build: UUID, found: list[tuple[str | None, int]]
) -> Callable[[], None]:
    key = f"claude:session:{build}"

    def read() -> None:
        with baton.redis(1) as client:
            text = client.get(key)
            found.append((str(text) if text else None, client.pttl(key)))

    return read


def test_the_chain_runs_on_a_project_of_the_products_own(baton: Baton, told: Told):
    assert baton.job(told.build)["state"] == baton.job(told.update)["state"] == "done"
    assert (baton.workspace("shop") / "index.html").read_text() == "<h1>One</h1>"
    versions = baton.rows("select * from project_versions order by id")
    assert [(one["version_id"], one["label"]) for one in versions] == [
        ("v1", "First"),
        ("v2", "Second"),
    ]
    moves = baton.moves("shop")
    assert versions[0]["ai_session_id"] == moves[2]["new_session_id"]
    assert versions[1]["ai_session_id"] == moves[5]["new_session_id"] == baton.head("shop")


def test_the_products_columns_and_rows_are_as_they_were(baton: Baton, told: Told):
    assert baton.rows(THEIRS) == told.before
    assert baton.head("quiet") is None
    columns = baton.rows(
        """
        select column_name, data_type, is_nullable from information_schema.columns
         where table_name = 'project_versions' and column_name in ('id', 'label', 'version_id')
         order by 1
        """
    )
    assert [tuple(one.values()) for one in columns] == [
        ("id", "integer", "NO"),
        ("label", "text", "NO"),
        ("version_id", "text", "NO"),
    ]


def test_what_only_the_product_can_fill_is_asked_for_before_anything_runs(baton: Baton):
    with pytest.raises(Refused, match=r"project_versions\.label is for your product to fill"):
        baton.ask(Build(project="quiet", user="eve", prompt="x"))
    with pytest.raises(Refused, match="create it in your product first"):
        baton.ask(ChatPlan(project="unknown", user="eve", prompt="x"))
    assert baton.jobs("quiet") == baton.jobs("unknown") == []


@pytest.mark.long
def test_with_resuming_off_every_turn_begins_fresh_and_says_why(baton: Baton, told: Told):
    moves = baton.moves("shop")
    assert [move["parent_session_id"] for move in moves] == [None] * 6
    assert [(move["source"], move["reason"]) for move in moves] == [
        ("build", None),
        *[("reset", "resume_off")] * 5,
    ]
    assert baton.tries(told.update) == [(None, "fresh", "resume_off")]
    assert baton.events("shop", "session.resume_failed") == [], "nothing was lost"


def test_with_resuming_off_an_update_knows_the_past_by_its_digest(baton: Baton, told: Told):
    seen = baton.seen_of("shop", SECOND)
    assert seen.prompts == (SECOND,)
    assert FIRST in seen.history
    assert "index.html" in seen.history


def test_a_small_session_is_not_compacted_and_the_job_says_so(baton: Baton, told: Told):
    *_, compaction = chain(baton.conn, told.build)
    assert (compaction.kind, compaction.state) == ("compaction", "done")
    assert compaction.result == {"skipped": "below_threshold"}
    assert not [one for one in baton.seen("shop") if one.kind == "compaction"]


def test_a_checkpoint_lives_while_its_chain_runs_and_ends_after_it(baton: Baton, told: Told):
    first, second = baton.moves("shop")[:2]
    took = second["created_at"] - first["created_at"]
    assert took.total_seconds() > TTL + 0.5, "one step ran longer than a checkpoint lives"
    there = [text is not None for text, _ in told.checkpoints]
    assert all(there[there.index(True) :]), "it was there for as long as the chain ran"
    assert max(ttl for _, ttl in told.checkpoints) <= TTL * 1000
    with baton.redis(1) as client:
        wait_until(
            lambda: not client.exists(f"claude:session:{told.update}"),
            description="the checkpoint to end",
        )


def test_a_plain_message_is_refused_where_it_is_switched_off(baton: Baton):
    asked: dict[str, Any] = {"project_id": "shop", "user_id": "ann", "prompt": "x"}
    task = baton.send("tasks.build", version_id="v1", **asked)
    shown = baton.task_in(task, "FAILURE")
    assert "BATON_PLAIN_CELERY" in shown["exception"]
    assert baton.rows("select 1 from jobs where id = %s", UUID(task)) == []


def test_two_beats_do_the_work_of_a_period_once(baton: Baton):
    def ran() -> int:
        found = httpx.get(
            f"{baton.up.flower_url}/api/tasks",
            params={"taskname": "tasks.upkeep.mark_stale", "state": "SUCCESS"},
            trust_env=False,
        )
        return len(found.json())

    def periods() -> int:
        return len(baton.rows("select 1 from ticks where name = 'mark_stale'"))

    wait_until(
        lambda: ran() >= periods() + 3 and periods() > 1,
        timeout=20,
        description="both beats to have asked for the same periods",
    )
    late = "select 1 from ticks where ended_at is null and at < now() - interval '5 seconds'"
    assert baton.rows(late) == []


def test_a_worker_without_a_proxy_runs_one_for_as_long_as_it_lives(other: Baton):
    assert other.chat("asked", "say hello")["state"] == "done"
    worker = psutil.Process(other.up.pid("worker"))
    (own,) = [
        each for each in worker.children(recursive=True) if each.cmdline()[-1:] == ["egress"]
    ]
    worker.kill()
    wait_until(lambda: not own.is_running(), description="the proxy to end with its worker")
    assert other.chat("asked", "say hello again")["state"] == "done"
    # What it was clearing up when it was killed: the others count what is begun and does not end.
    other.conn.execute(
        "delete from ticks where ended_at is null and at < now() - interval '4 s'"
    )
