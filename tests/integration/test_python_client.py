"""`baton_client`: the same requests and refusals as at Baton's own doors, in either way of calling."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import baton_client
import httpx
import psycopg
import pytest
from baton_client import (
    AsyncBaton,
    Baton,
    Build,
    ChatPlan,
    Failed,
    Job,
    NotGenuine,
    Refused,
    Update,
    enqueue,
    enqueue_async,
    verify,
)
from baton_client import refused as their_refusals
from baton_client.requests import Ask
from psycopg import Connection
from pydantic import ValidationError
from standardwebhooks import Webhook

from db.core.codes import CODES
from db.jobs import outbox
from tests.gateways import Gateway
from tests.gateways import at as at
from tests.gateways import ledger as ledger
from tests.gateways import url as url
from tests.ledger import advance, claim, turn
from worker import client as ours
from worker.live.told import Job as Told


@pytest.fixture
def baton(at: Gateway) -> Iterator[Baton]:
    with Baton(at.url, at.key, http=httpx.Client(trust_env=False, timeout=75)) as one:
        yield one


@pytest.fixture
def project() -> str:
    return f"shop-{uuid4().hex[:8]}"


def test_it_knows_the_requests_answers_and_refusals_that_baton_has():
    for name in ("Build", "Update", "ChatPlan", "Metadata", "Compaction"):
        mine, theirs = getattr(ours, name), getattr(baton_client, name)
        assert list(theirs.model_fields) == list(mine.model_fields)
        assert theirs.kind == mine.kind
    assert {n: f.annotation for n, f in Job.model_fields.items()} == {
        n: f.annotation for n, f in Told.model_fields.items()
    }
    assert their_refusals.CODES == CODES


def test_in_a_transaction_of_ones_own_the_job_is_there_when_that_commits(
    url: str, ledger: Connection, project: str
):
    ask = Build(project=project, user="ann", prompt="go", key="k", budget="0.5")  # pyright: ignore[reportArgumentType]
    with psycopg.connect(url) as mine:
        made = enqueue(mine, ask)
        with pytest.raises(Refused) as told:
            enqueue(mine, ask.model_copy(update={"prompt": "other"}))
        assert (told.value.code, told.value.field) == ("key_conflict", "key")
        assert enqueue(mine, ask) == made
        assert ledger.execute("select from jobs where id = %s", (made.id,)).rowcount == 0
    row = ledger.execute("select kind, args ->> 'budget' from jobs where id = %s", (made.id,))
    assert row.fetchone() == ("build", "0.5")

    async def other() -> UUID:
        async with await psycopg.AsyncConnection.connect(url) as conn:
            with pytest.raises(Refused, match="NUL"):
                await enqueue_async(conn, ask.model_copy(update={"prompt": "\x00"}))
            return (await enqueue_async(conn, ask)).id

    assert asyncio.run(other()) == made.id


def test_a_database_that_is_not_batons_says_so(empty_dsn: str, project: str):
    with psycopg.connect(empty_dsn) as conn, pytest.raises(Refused) as told:
        enqueue(conn, Build(project=project, user="ann", prompt="go"))
    assert told.value.code == "not_migrated"


def test_over_http_a_job_is_asked_for_waited_for_and_read(
    baton: Baton, ledger: Connection, project: str
):
    asked = baton.enqueue(Build(project=project, user="ann", prompt="go"))
    with pytest.raises(TimeoutError):
        baton.wait(asked.id, timeout=0.3)
    outbox.look(ledger)
    job = claim(ledger, asked.id)
    assert job
    minted = turn(ledger, job)
    advance(ledger, job, minted, raw_cost_usd=0.25, result={"text": "made"})
    done = baton.wait(asked.id, timeout=60, chain=True)
    assert (done.state, done.session, done.result) == ("done", minted, {"text": "made"})
    assert float(done.cost_usd or 0) == 0.25
    assert baton.project(project)["head"] == minted
    assert [item["id"] for item in baton.page(project, "jobs").items] == [str(asked.id)]
    (first,) = itertools.islice(baton.events(project), 1)
    assert [event.seq for event in first.items] == list(range(1, len(first.items) + 1))
    again = baton.retry(asked.id)
    assert baton.cancel(again.id).state == "cancelled"
    assert baton.ticket(project, "ann").expires_at > datetime.now(UTC)


def test_what_is_refused_and_what_fails_are_told_apart(at: Gateway, baton: Baton, project: str):
    with pytest.raises(Refused) as refused:
        baton.enqueue(Update(project=project, user="ann", prompt=" "))
    assert (refused.value.code, refused.value.field) == ("bad_input", "prompt")
    with pytest.raises(Failed) as unknown:
        baton.job(uuid4())
    assert (unknown.value.status, unknown.value.code) == (404, "unknown_job")
    nobody = Baton(at.url, "bk_no", http=httpx.Client(trust_env=False))
    with nobody, pytest.raises(Failed) as told:
        nobody.project(project)
    assert told.value.status == 401
    for name in ("a/../b?c#d", "nosuch", "\ud800"):
        with pytest.raises(Failed) as gone:
            baton.project(name)
        assert gone.value.status == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", "\ud800"),
        ("prompt", "a\x00b"),
        ("check", ["true", "\ud800"]),
        ("key", ""),
        ("key", "\ud800"),
        ("key", "x" * 201),
        ("priority", 10**400),
        ("max_turns", -(10**400)),
        ("budget", Decimal("1e500")),
    ],
)
def test_what_no_door_takes_is_refused_over_http_and_in_a_transaction_alike(
    url: str, baton: Baton, project: str, field: str, value: object
):
    ask = Build.model_validate(
        {"project": project, "user": "ann", "prompt": "go"} | {field: value}
    )
    with pytest.raises(Refused) as over_http:
        baton.enqueue(ask)
    with psycopg.connect(url) as mine, pytest.raises(Refused) as in_mine:
        enqueue(mine, ask)
    for told in (over_http.value, in_mine.value):
        assert (told.code, told.field) == ("bad_input", field)


def test_true_is_no_number():
    with pytest.raises(ValidationError):
        Build(project="p", user="ann", prompt="go", max_turns=True)


def test_a_key_is_the_same_text_in_both_ways_of_asking(url: str, baton: Baton, project: str):
    ask = Build(project=project, user="ann", prompt="go", key="заказ 17")
    made = baton.enqueue(ask)
    with psycopg.connect(url) as mine:
        assert enqueue(mine, ask).id == made.id
    for key in ("a\nb", " a", "a ", "\x7f"):  # no header can have it
        with pytest.raises(Refused) as told:
            baton.enqueue(ask.model_copy(update={"key": key}))
        assert (told.value.code, told.value.field) == ("bad_input", "key")


def test_whoever_asks_too_often_is_told_when_to_ask_again(
    url: str, baton: Baton, ledger: Connection, project: str
):
    ledger.execute(
        "insert into baton_settings (name, value) values ('user_rate', '1')"
        " on conflict (name) do update set value = '1'"
    )
    ask = Build(project=project, user="often", prompt="go")
    try:
        baton.enqueue(ask)
        with pytest.raises(Refused) as over_http:
            baton.enqueue(ask)
        with psycopg.connect(url) as mine, pytest.raises(Refused) as in_mine:
            enqueue(mine, ask)
    finally:
        ledger.execute("update baton_settings set value = '0' where name = 'user_rate'")
    for told in (over_http.value, in_mine.value):
        assert told.code == "too_many_requests"
        assert told.again_at
        assert told.again_at > datetime.now(UTC)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>a portal</html>"),
        httpx.Response(200, json=[]),
        httpx.Response(302, headers={"Location": "/login"}),
        httpx.Response(404, text="no such route"),
        httpx.Response(404, json={"code": 5}),
    ],
)
def test_what_baton_would_not_answer_is_told_as_such(answer: httpx.Response):
    http = httpx.Client(transport=httpx.MockTransport(lambda _: answer))
    with Baton("http://baton", "bk_x", http=http) as baton:
        for call in (
            lambda: baton.enqueue(Build(project="p", user="ann", prompt="go")),
            lambda: baton.job(uuid4()),
            lambda: baton.project("p"),
            lambda: next(baton.events("p")),
            lambda: baton.ticket("p", "ann"),
        ):
            with pytest.raises(Failed) as told:
                call()
            assert (told.value.status, told.value.code) == (answer.status_code, "no_answer")


def test_asyncio_has_the_same_calls(at: Gateway, project: str):
    plain = {name for name in vars(Baton) if not name.startswith("_")}
    assert plain == {name for name in vars(AsyncBaton) if not name.startswith("_")}

    async def story() -> None:
        http = httpx.AsyncClient(trust_env=False, timeout=75)
        async with AsyncBaton(at.url, at.key, http=http) as baton:
            asked = await baton.enqueue(ChatPlan(project=project, user="ann", prompt="hm"))
            assert (await baton.job(asked.id)).state == "queued"
            await baton.cancel(asked.id)
            assert (await baton.wait(asked.id, chain=True)).state == "cancelled"

    asyncio.run(story())


MAKE_A_JOB: dict[str, Callable[[Baton], object]] = {
    "enqueue": lambda baton: baton.enqueue(Build(project="shop", user="ann", prompt="go")),
    "retry": lambda baton: baton.retry(uuid4()),
}


@pytest.mark.parametrize("way", MAKE_A_JOB)
def test_a_gateway_that_is_away_for_a_moment_is_asked_again_and_makes_one_job(way: str):
    keys, answers = list[str](), [httpx.ConnectError("away"), 503, 202]

    def handle(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        made = {"id": str(uuid4()), "chain": str(uuid4()), "state": "queued"}
        return httpx.Response(answer, json=made)

    http = httpx.Client(transport=httpx.MockTransport(handle))
    with Baton("http://baton", "bk_x", http=http) as baton:
        MAKE_A_JOB[way](baton)
    assert (len(keys), len(set(keys))) == (3, 1)


def test_a_key_that_was_read_from_a_file_counts_and_one_that_cannot_be_sent_is_told_at_once(
    at: Gateway, project: str
):
    def asked(key: str, url: str = at.url) -> Baton:
        return Baton(url, key, http=httpx.Client(trust_env=False))

    with asked(f"{at.key}\n") as baton:
        assert baton.enqueue(Build(project=project, user="ann", prompt="go")).state == "queued"
    with asked("") as baton, pytest.raises(Failed) as told:
        baton.project(project)
    assert told.value.status == 401
    began = time.monotonic()
    for baton in (asked("bk_\n\nx"), asked(at.key, at.url.removeprefix("http://"))):
        with baton, pytest.raises(httpx.TransportError):
            baton.project(project)
    assert time.monotonic() - began < 3, "it is tried once"


SECRET = "whsec_" + "a" * 32


@pytest.fixture
def told() -> bytes:
    fields = dict.fromkeys(Job.model_fields)
    return json.dumps(
        fields | {"id": str(uuid4()), "chain": str(uuid4()), "kind": "build", "project": "p",
                  "user": "u", "state": "done", "attempts": 1, "ended": True, "chain_ended": True,
                  "created_at": "2026-01-01T00:00:00Z", "tokens": {},
                  "checks": []}
    ).encode()  # fmt: skip


def signed(body: bytes, at: float) -> dict[str, str]:
    moment = datetime.fromtimestamp(at, UTC)
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(at)),
        "Webhook-Signature": "v1,bm8= " + Webhook(SECRET).sign("msg_1", moment, body.decode()),
    }


def test_a_webhook_is_believed_if_it_is_signed_and_new(told: bytes):
    headers = signed(told, time.time())
    assert verify(SECRET, told, headers).state == "done"
    for secret, body, given in (
        ("whsec_" + "b" * 32, told, headers),
        (SECRET, told + b" ", headers),
        (SECRET, told, headers | {"Webhook-Id": "msg_2"}),
        (SECRET, told, signed(told, time.time() - 400)),
        (SECRET, told, signed(told, time.time() + 400)),
        (SECRET, told, {}),
        (SECRET, told, headers | {"Webhook-Timestamp": "soon"}),
        (SECRET, told, headers | {"Webhook-Timestamp": "9" * 400}),
        (SECRET, told, headers | {"Webhook-Id": "\udcff"}),
        (SECRET, told, headers | {"Webhook-Signature": "v1,\udcff"}),
        (SECRET, b"{}", signed(b"{}", time.time())),
    ):
        with pytest.raises(NotGenuine):
            verify(secret, body, given)


def test_it_lies_beside_what_baton_imports_and_imports_none_of_it():
    place = Path(baton_client.__file__).parent
    text = "".join(file.read_text() for file in place.glob("*.py"))
    for package in ("config", "db", "worker", "tasks", "gateway"):
        assert f"from {package}" not in text
    assert issubclass(Build, Ask)
