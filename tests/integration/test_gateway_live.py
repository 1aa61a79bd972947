"""`/v1/live`: each event once and in order, no message lost, whatever dies."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from psycopg import Connection

from db.core.events import Event, append
from db.jobs import outbox
from tests.conftest import Configure
from tests.gateways import Gateway, Tab, gateway, opened, tab, talk
from tests.gateways import ledger as ledger
from tests.gateways import project as project
from tests.gateways import url as url
from tests.waiting import wait_until
from worker.broker import publish
from worker.cleanup import deletion as deleting


@pytest.fixture(scope="module")
def at(
    url: str, redis_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    log = tmp_path_factory.mktemp("gateway") / "log"
    with gateway(url, redis_server, log, BATON_WEB_ORIGINS="https://shop.example") as one:
        yield one


@pytest.fixture(autouse=True)
def _nobody_yet(redis_url: str, ledger: Connection) -> None:
    """All tests are one user at one address; hellos are counted in Redis, which is empty."""
    ledger.execute("delete from live_connections")


def tell(conn: Connection, project: str, many: int) -> None:
    for _ in range(many):
        append(conn, project, [Event("noise", None, {"text": "x"})])


def test_a_client_is_sent_each_event_once_and_in_order_and_what_comes_next(
    at: Gateway, project: str, ledger: Connection
):
    async def story() -> None:
        async with await tab(at, project) as one:
            welcome = await one.next("welcome")
            assert (welcome["mode"], welcome["head"]) == ("replay", 2)
            assert (await one.next("live"))["head"] == 2
            await asyncio.to_thread(tell, ledger, project, 20)
            while one.seqs[-1:] != [22]:
                await one.next("event")
            assert one.seqs == list(range(1, 23))
        async with await tab(at, project, last=20, epoch=welcome["epoch"]) as again:
            await again.next("live")
            assert again.seqs == [21, 22]

    talk(story)


def test_a_message_is_a_job_for_ever_under_its_id(
    at: Gateway, project: str, ledger: Connection
):
    async def story() -> None:
        async with await tab(at, project) as one:
            await one.next("live")
            number = str(uuid4())
            said = {"t": "msg", "id": number, "kind": "ask", "text": "What is here?"}
            await one.say(**said)
            first = await one.next("ack")
            await one.say(**said)
            again = await one.next("ack")
            await one.say(**said | {"text": "other"})
            other = await one.next("nack")
        assert (first["id"], first["dup"], again["dup"]) == (number, False, True)
        assert again["job"] == first["job"]
        assert (other["code"], other["retry"], other["id"]) == ("key_conflict", False, number)
        found = ledger.execute(
            "select kind, user_id, args ->> 'prompt', args ->> 'on_lost' from jobs where id = %s",
            (first["job"],),
        ).fetchone()
        assert found == ("chat_plan", "ann", "What is here?", "ask")

    talk(story)


def test_a_message_that_begins_its_project_is_one_job_too_and_is_acked_again(
    at: Gateway, ledger: Connection
):
    project = f"new-{uuid4().hex[:8]}"
    said = {"t": "msg", "id": str(uuid4()), "kind": "update", "text": "A page with our hours"}

    async def story() -> None:
        async with await tab(at, project) as one:
            await one.next("live")
            await one.say(**said)
            first = await one.next("ack")
            await one.say(**said)
            again = await one.next("ack")
            await one.say(**said | {"text": "other"})
            assert (await one.next("nack"))["code"] == "key_conflict"
        assert (first["dup"], again) == (False, first | {"dup": True})

    talk(story)
    count = "select count(*) from jobs where project_id = %s"
    assert ledger.execute(count, (project,)).fetchone() == (1,)


def test_the_same_message_of_two_tabs_at_once_is_new_to_one_of_them(at: Gateway, project: str):
    said = {"t": "msg", "id": str(uuid4()), "kind": "ask", "text": "What is here?"}

    async def story() -> None:
        async with await tab(at, project) as one, await tab(at, project) as two:
            for each in (one, two):
                await each.next("live")
            await asyncio.gather(one.say(**said), two.say(**said))
            acks = [await one.next("ack"), await two.next("ack")]
        assert sorted(ack["dup"] for ack in acks) == [False, True]
        assert acks[0]["job"] == acks[1]["job"]

    talk(story)


def test_who_waits_for_a_project_to_begin_hears_nothing_of_another_users(
    at: Gateway, ledger: Connection
):
    project = f"new-{uuid4().hex[:8]}"
    ticket = at.ticket(project, "bob")

    async def story() -> None:
        async with await opened(at) as one:
            await one.say(**HELLO | {"project": project, "ticket": ticket})
            await one.next("live")
            await asyncio.to_thread(at.ask, project)  # ann's
            await asyncio.to_thread(outbox.look, ledger)
            assert (await one.closed())[0] == 4404
            assert one.seqs == []

    talk(story)


def test_whoever_watches_a_project_that_is_deleted_is_told(
    at: Gateway, project: str, ledger: Connection
):
    async def story() -> None:
        async with await tab(at, project) as one:
            welcome = await one.next("welcome")
            await one.next("live")
            for table in ("events", "jobs", "account_projects", "projects"):
                await asyncio.to_thread(
                    ledger.execute, f"delete from {table} where project_id = %s", (project,)
                )
            assert (await one.closed())[0] == 1012
        async with await tab(at, project, last=2, epoch=welcome["epoch"]) as again:
            assert (await again.next("welcome"))["mode"] == "snapshot"

    talk(story)


@pytest.mark.parametrize("what", ["project", "user"])
def test_a_conversation_that_was_deleted_has_ended(
    at: Gateway, ledger: Connection, url: str, redis_url: str, configure: Configure, what: str
):
    configure(DATABASE_URL=url, REDIS_URL=redis_url)
    project, user = f"shop-{uuid4().hex[:8]}", f"ann-{uuid4().hex[:8]}"
    at.ask(project, user=user)
    outbox.look(ledger)
    ticket = at.ticket(project, user)

    async def hello(one: Tab, last: int = 0, epoch: str | None = None) -> Tab:
        await one.say(
            **HELLO | {"project": project, "ticket": ticket, "last": last, "epoch": epoch}
        )
        return one

    async def story() -> None:
        async with await hello(await opened(at)) as one:
            welcome = await one.next("welcome")
            await one.next("live")
            subject = project if what == "project" else user
            await asyncio.to_thread(deleting.delete, ledger, what, subject)
            assert await one.closed() == (4410, "This project was deleted.")
        async with await hello(await opened(at), last=1, epoch=welcome["epoch"]) as again:
            assert (await again.closed())[0] == 4410
        async with await hello(
            await opened(at)
        ) as anew:  # who knows nothing of it may begin it
            assert (await anew.next("welcome"))["epoch"] == ""

    talk(story)


def test_a_log_that_was_restored_into_its_database_is_another_one(
    at: Gateway, project: str, ledger: Connection
):
    """As pg_restore does it: the same rows, from before the newest, in tables that are new."""

    def restore() -> None:
        with ledger.transaction():
            ledger.execute("create temporary table kept on commit drop as select * from events")
            ledger.execute("truncate events")
            ledger.execute("insert into events select * from kept where seq = 1")
            ledger.execute("update projects set event_seq = 1")

    async def story() -> None:
        async with await tab(at, project) as one:
            welcome = await one.next("welcome")
            await one.next("live")
            await asyncio.to_thread(restore)
            assert (await one.closed())[0] == 1012
        await asyncio.to_thread(append, ledger, project, [Event("noise", None, {})] * 5)
        async with await tab(at, project, last=one.seqs[-1], epoch=welcome["epoch"]) as again:
            welcome = await again.next("welcome")
            assert (welcome["mode"], welcome["at"]) == ("snapshot", 6)

    talk(story)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"t": "dance"}, "unknown_frame"),
        ({"t": "dance", "id": "\ud83d"}, "unknown_frame"),
        ({"t": "msg", "id": str(uuid4()), "kind": ["ask"], "text": "x"}, "bad_input"),
        ({"t": "msg", "id": "no uuid", "kind": "ask", "text": "x"}, "bad_input"),
        ({"t": "msg", "id": str(uuid4()), "kind": "sing", "text": "x"}, "bad_input"),
        ({"t": "msg", "id": str(uuid4()), "kind": "ask", "text": " "}, "bad_input"),
        ({"t": "msg", "id": str(uuid4()), "kind": "ask", "text": "\x00"}, "bad_input"),
        (
            {"t": "msg", "id": str(uuid4()), "kind": "ask", "text": "x" * 200_001},
            "prompt_too_long",
        ),
        ({"t": "cancel", "job": str(uuid4())}, "unknown_job"),
        ({"t": "answer", "job": "x", "choice": "retry"}, "unknown_job"),
    ],
)
def test_a_frame_that_makes_no_sense_is_refused_and_the_connection_goes_on(
    at: Gateway, project: str, frame: dict[str, object], code: str
):
    async def story() -> None:
        async with await tab(at, project) as one:
            await one.next("live")
            await one.say(**frame)
            nack = await one.next("nack")
            assert (nack["code"], nack["retry"]) == (code, False)
            assert nack["text"].endswith(".")

    talk(story)


HELLO = {"t": "hello", "v": 1, "ticket": None, "tab": None, "epoch": None, "last": 0}


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("no JSON", 4400),
        ("[1]", 4400),
        ({"t": "msg"}, 4400),
        (HELLO | {"v": 2}, 4400),
        (HELLO | {"last": -1}, 4400),
        (HELLO | {"last": "x"}, 4400),
        (HELLO | {"project": 7}, 4400),
        (HELLO | {"project": "\ud83d"}, 4400),
        (HELLO, 4401),
        (HELLO | {"ticket": "forged"}, 4401),
    ],
)
def test_what_is_no_hello_is_closed_with_a_code_and_a_sentence(
    at: Gateway, project: str, first: str | dict[str, object], code: int
):
    async def story() -> None:
        async with await opened(at) as one:
            if isinstance(first, str):
                await one.ws.send(first)
            else:
                await one.say(**{"project": project} | first)
            found, reason = await one.closed()
            assert (found, reason[-1:]) == (code, ".")

    talk(story)


def test_a_ticket_opens_its_own_project_only_and_not_to_pages_that_may_not(
    at: Gateway, project: str
):
    async def story() -> None:
        ticket = at.ticket(project)
        async with await opened(at) as one:
            await one.say(**HELLO | {"project": "another", "ticket": ticket})
            assert (await one.closed())[0] == 4404
        async with await opened(at, origin="https://evil.example") as one:
            assert (await one.closed())[0] == 4401
        async with await opened(at, origin="https://shop.example") as one:
            await one.say(**HELLO | {"project": project, "ticket": ticket})
            await one.next("live")

    talk(story)


def test_a_page_that_is_named_may_read_over_http_too(at: Gateway, project: str):
    asks = {"Access-Control-Request-Method": "POST"}
    with at.http as http:
        for page, may in (("https://shop.example", True), ("https://evil.example", False)):
            first = http.options("/v1/session", headers=asks | {"Origin": page})
            assert (first.status_code, first.headers.get("access-control-allow-origin")) == (
                (200, page) if may else (400, None)
            )
            read = http.get(f"/v1/projects/{project}/events", headers={"Origin": page})
            assert read.headers.get("access-control-allow-origin") == (page if may else None)
            assert "Stream-Next-Offset" in read.headers["access-control-expose-headers"]


def test_whoever_is_far_behind_or_ahead_or_of_another_epoch_gets_the_state_and_its_place(
    at: Gateway, project: str, ledger: Connection
):
    ledger.execute(
        "insert into events (project_id, seq, type, body)"
        " select %s, n, 'noise', '{}' from generate_series(3, 5010) n",
        (project,),
    )
    ledger.execute(
        "update events set type = 'check.failed', body = '{\"command\": \"npm test\"}'"
        " where project_id = %s and seq = 9",
        (project,),
    )
    ledger.execute("update projects set event_seq = 5010 where project_id = %s", (project,))

    async def story() -> None:
        for last, epoch in ((0, None), (9999, None), (5000, "another")):
            async with await tab(at, project, last=last, epoch=epoch) as one:
                welcome = await one.next("welcome")
                assert (welcome["mode"], welcome["at"]) == ("snapshot", 5010)
                assert [m["text"] for m in welcome["state"]["messages"]] == ["go"]
                (job,) = welcome["state"]["jobs"]
                assert (job["state"], job["error_class"], job["attempt"]) == ("queued", None, 0)
                (check,) = welcome["state"]["checks"]
                assert (check["seq"], check["body"]["command"]) == (9, "npm test")
                assert (await one.next("live"))["head"] == 5010
                assert one.seqs == []

    talk(story)


def test_another_epoch_is_told_by_the_state_however_little_was_seen_of_it(
    at: Gateway, project: str
):
    async def story() -> None:
        async with await tab(at, project, epoch="another") as one:
            assert (await one.next("welcome"))["mode"] == "snapshot"
        for none in (None, ""):  # a project that had not begun has no epoch
            async with await tab(at, project, epoch=none) as one:
                assert (await one.next("welcome"))["mode"] == "replay"
        async with await tab(at, f"{project}-new", epoch="of one that is gone") as one:
            welcome = await one.next("welcome")
            assert (welcome["mode"], welcome["at"]) == ("snapshot", 0)
            assert (await one.next("live"))["head"] == 0

    talk(story)


def test_what_the_agent_does_is_shown_as_it_happens_and_once(
    at: Gateway, project: str, ledger: Connection, redis_server: str
):
    chain = str(uuid4())
    body = {"kind": "build", "chain": chain}

    def does(text: str, what: str = "text") -> None:
        with redis.Redis.from_url(f"{redis_server.rpartition('/')[0]}/2") as client:
            client.xadd(f"progress:{chain}", {"body": json.dumps({"what": what, "text": text})})
            client.expire(f"progress:{chain}", 60)

    async def story() -> None:
        async with await tab(at, project) as one:
            await one.next("live")
            await asyncio.to_thread(
                append, ledger, project, [Event("job.started", uuid4(), body)]
            )
            await one.next("event")
            await asyncio.to_thread(does, "one")
            assert (await one.next("progress"))["text"] == "one"
            async with await tab(at, project) as late:
                assert (await late.next("progress"))["text"] == "one"
            await asyncio.to_thread(does, "tw", "writing")
            assert (await one.next("progress"))["text"] == "tw"
            await asyncio.to_thread(does, "two")
            assert (await one.next("progress"))["text"] == "two"
            async with await tab(at, project) as late:
                assert (await late.next("progress"))["text"] == "one"
                assert (await late.next("progress"))["text"] == "two"
        assert [f["text"] for f in one.got if f["t"] == "progress"] == ["one", "tw", "two"]

    talk(story)


def test_a_message_that_a_rule_of_the_products_refuses_is_no_outage(
    at: Gateway, project: str, ledger: Connection
):
    """It is told once, and not to be sent again; the connection goes on."""
    ledger.execute(
        """
        create function no_shouting() returns trigger language plpgsql as $$ begin
            if new.args ->> 'prompt' like '%!' then raise 'No shouting.'; end if;
            return new;
        end $$;
        create trigger no_shouting before insert on jobs for each row execute function no_shouting()
        """
    )

    async def story() -> None:
        async with await tab(at, project) as one:
            await one.next("live")
            for text, answer in (("Now!", "nack"), ("Please.", "ack")):
                await one.say(t="msg", id=str(uuid4()), kind="update", text=text)
                frame = await one.next(answer)
                if answer == "nack":
                    assert (frame["code"], frame["retry"]) == ("failed", False)
        with at.http as http:
            body = {"kind": "update", "project": project, "user": "ann", "prompt": "Now!"}
            refused = http.post("/v1/jobs", json=body)
        assert (refused.status_code, refused.json()["code"]) == (500, "failed")

    try:
        talk(story)
    finally:
        ledger.execute("drop function no_shouting cascade")


def test_without_redis_nothing_is_missing(
    url: str, project: str, ledger: Connection, tmp_path: Path
):
    with gateway(url, "redis://127.0.0.1:1/0", tmp_path / "log") as alone:
        assert "away" in httpx.get(f"{alone.url}/readyz", trust_env=False).json()["redis"]

        async def story() -> None:
            async with await tab(alone, project) as one:
                await one.next("live")
                await asyncio.to_thread(tell, ledger, project, 3)
                while one.seqs[-1:] != [5]:
                    await one.next("event")
                assert one.seqs == [1, 2, 3, 4, 5]

        talk(story)


def test_a_copy_in_redis_that_lacks_an_event_hides_none(
    at: Gateway, project: str, ledger: Connection, redis_url: str, configure: Configure
):
    configure(REDIS_URL=redis_url)  # it is empty: what was copied is gone

    async def story() -> None:
        async with await tab(at, project) as one:
            await one.next("live")
            await asyncio.to_thread(tell, ledger, project, 2)
            written = await asyncio.to_thread(
                append, ledger, project, [Event("noise", None, {"text": "copied"})]
            )
            await asyncio.to_thread(publish.copy, project, written)
            while one.seqs[-1:] != [5]:
                await one.next("event")
            assert one.seqs == [1, 2, 3, 4, 5]

    talk(story)


def test_two_gateways_side_by_side_are_one(
    at: Gateway, url: str, redis_server: str, project: str, ledger: Connection, tmp_path: Path
):
    said = {"t": "msg", "id": str(uuid4()), "kind": "update", "text": "Make it blue"}
    ticket = at.ticket(project)  # of the one; it counts at both

    async def story(other: Gateway) -> None:
        async with await opened(at) as here, await opened(other) as there:
            for one in (here, there):
                await one.say(**HELLO | {"project": project, "ticket": ticket})
                await one.next("live")
            await asyncio.gather(here.say(**said), there.say(**said))
            acks = [await here.next("ack"), await there.next("ack")]
            assert sorted(ack["dup"] for ack in acks) == [False, True]
            await asyncio.to_thread(outbox.look, ledger)
            query = "select event_seq from projects where project_id = %s"
            ((head,),) = ledger.execute(query, (project,)).fetchall()
            assert head > 2
            for one in (here, there):
                while one.seqs[-1:] != [head]:
                    await one.next("event")
            other.process.send_signal(signal.SIGTERM)
            assert (await there.closed())[0] == 1012
            await asyncio.to_thread(tell, ledger, project, 3)
            hello = {"project": project, "ticket": ticket, "last": there.seqs[-1]}
            async with await opened(at) as again:  # where the balancer sends it now
                await again.say(**HELLO | hello)
                while again.seqs[-1:] != [head + 3]:
                    await again.next("event")
                assert there.seqs + again.seqs == list(range(1, head + 4))

    with gateway(url, redis_server, tmp_path / "other") as other:
        talk(lambda: story(other))


def test_a_gateway_that_stops_says_so_and_one_that_is_killed_loses_no_message(
    url: str, redis_server: str, project: str, ledger: Connection, tmp_path: Path
):
    async def stopped(first: Gateway) -> None:
        async with await tab(first, project) as one:
            await one.next("live")
            first.process.send_signal(signal.SIGTERM)
            assert (await one.closed())[0] == 1012

    with gateway(url, redis_server, tmp_path / "first") as first:
        talk(lambda: stopped(first))
        assert first.process.wait(10) == -signal.SIGTERM

    number = str(uuid4())
    said = {"t": "msg", "id": number, "kind": "update", "text": "Make it blue"}

    async def killed(second: Gateway) -> None:
        async with await tab(second, project) as one:
            await one.next("live")
            await one.say(**said)
            await asyncio.to_thread(
                wait_until,
                lambda: ledger.execute("select from jobs where key = %s", (number,)).rowcount,
                description="the job to be there",
            )
            second.process.kill()

    async def gone_on(third: Gateway) -> None:
        async with await tab(third, project) as one:
            await one.next("live")
            await one.say(**said)
            assert (await one.next("ack"))["dup"] is True

    with gateway(url, redis_server, tmp_path / "second") as second:
        talk(lambda: killed(second))
    with gateway(url, redis_server, tmp_path / "third") as third:
        talk(lambda: gone_on(third))
    count = "select count(*) from jobs where key = %s"
    assert ledger.execute(count, (number,)).fetchone() == (1,)


@pytest.mark.parametrize(("name", "code"), [("cancel", "unknown_job"), ("x", "unknown_frame")])
def test_too_many_messages_and_too_many_connections_are_told_when_to_come_again(
    at: Gateway, project: str, ledger: Connection, name: str, code: str
):
    ledger.execute(
        "insert into live_connections (conn, project_id, user_id, gateway)"
        " select gen_random_uuid(), %s, 'ann', 'g' from generate_series(1, 9)",
        (project,),
    )

    async def story() -> None:
        async with await tab(at, project) as one:
            await one.next("live")
            for _ in range(31):
                await one.say(t=name, job="x")
            for _ in range(30):
                assert (await one.next("nack"))["code"] == code
            last = await one.next("nack")
            assert (last["code"], last["retry"]) == ("too_many_messages", True)
            assert 0 < last["retry_after"] <= 10
            async with await tab(at, project) as more:
                closed, reason = await more.closed()
                assert (closed, "retry_after=" in reason) == (4429, True)
        wait_until(
            lambda: (
                ledger.execute(
                    "select from live_connections where project_id = %s and status = 'disconnected'",
                    (project,),
                ).rowcount
            ),
            description="the registry to know that it went",
        )

    talk(story)
    ledger.execute("delete from live_connections")


def test_a_message_may_have_a_check_and_be_a_race_if_it_asks_for_a_change(
    at: Gateway, project: str, ledger: Connection
):
    async def story() -> None:
        async with await tab(at, project) as one:
            await one.next("live")
            said: dict[str, Any] = {"t": "msg", "kind": "update", "text": "go"}
            bad: list[dict[str, Any]] = [
                {"check": ["npm test"]},
                {"kind": "ask", "check": "npm test"},
                {"check": " "},
                {"race": 3},
                *({"check": "npm test", "race": race} for race in ("3", 1, True, 2.5)),
            ]
            for more in bad:
                await one.say(**said | more, id=str(uuid4()))
                assert (await one.next("nack"))["code"] == "bad_input", more
            await one.say(**said, id=str(uuid4()), check="npm test", race=3)
            job = (await one.next("ack"))["job"]
        row = ledger.execute(
            "select args -> 'check', args -> 'race' from jobs where id = %s", (job,)
        ).fetchone()
        assert row == ("npm test", 3)

    talk(story)


def test_answers_and_cancels_are_acked_or_refused_with_the_job_they_are_about(
    at: Gateway, project: str
):
    job = at.ask(project, "again")

    async def story() -> None:
        async with await tab(at, project) as one:
            await one.next("live")
            await one.say(t="answer", job=job, choice="dance", id=str(uuid4()))
            assert (await one.next("nack"))["code"] == "bad_input"
            await one.say(t="answer", job=job, choice="retry")
            nack = await one.next("nack")
            assert (nack["code"], nack["job"]) == ("asks_nothing", job)
            await one.say(t="cancel", job=job)
            assert (await one.next("ack"))["job"] == job

    talk(story)


def test_an_answer_that_is_sent_again_is_acked_again(
    at: Gateway, project: str, ledger: Connection
):
    job = at.ask(project, "again")
    ledger.execute(
        "update jobs set state = 'parked', error_class = 'ask', error = 'lost' where id = %s",
        (job,),
    )

    async def story() -> None:
        async with await tab(at, project) as one:
            await one.next("live")
            said = {"t": "answer", "job": job, "choice": "retry", "id": str(uuid4())}
            await one.say(**said)
            first = await one.next("ack")
            await one.say(**said)
            assert await one.next("ack") == first | {"dup": True}
            await one.say(**said | {"choice": "start_new"})
            assert (await one.next("nack"))["code"] == "asks_nothing"

    talk(story)


def test_too_many_requests_of_a_user_are_told_when_to_ask_again(
    at: Gateway, project: str, ledger: Connection
):
    ledger.execute(
        "insert into baton_settings (name, value) values ('user_rate', '1')"
        " on conflict (name) do update set value = '1'"
    )

    async def story() -> None:
        async with await tab(at, project) as one:
            await one.next("live")
            for _ in range(2):
                await one.say(t="msg", id=str(uuid4()), kind="ask", text="What is here?")
            nack = await one.next("nack")
            assert (nack["code"], nack["retry"]) == ("too_many_requests", True)
            assert 0 < nack["retry_after"] <= 60

    try:
        talk(story)
    finally:
        ledger.execute("update baton_settings set value = '0' where name = 'user_rate'")
