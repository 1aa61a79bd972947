"""Webhooks: who asked is told once its chain has ended, whatever dies, and nobody else is reached."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection, sql

from config.settings import settings
from db.core import ledger_settings, pool
from db.jobs import jobs, rescue, webhooks
from db.operations import upkeep
from tests import ledger
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.commandline import baton as baton
from tests.conftest import Configure
from tests.counting import reading
from tests.gateways import gateway
from tests.ledger import advance, ask, begun, claim, finish, next_job, one, turn
from tests.receivers import Receiver, receiver
from tests.tls import Signer, tls_before
from tests.waiting import wait_until
from worker.client import BadCallback, Build, enqueue
from worker.webhooks import addresses, sender, signing
from worker.webhooks.post import client, post

Allow = Callable[..., None]


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as it:
        yield it


@pytest.fixture
def allow(configure: Configure, dsn: str, conn: Connection) -> Iterator[Allow]:
    """`allow("127.0.0.1", networks="127.0.0.0/8")`: as an operator allows it."""

    def change(hosts: str = "127.0.0.1", networks: str = "127.0.0.0/8") -> None:
        configure(
            DATABASE_URL=dsn,
            BATON_SECRET="a secret of the tests, which is long enough",
            BATON_CALLBACK_HOSTS=hosts,
            BATON_CALLBACK_NETWORKS=networks,
        )
        ledger_settings.tell(conn)

    change()
    yield change
    pool.close()


@pytest.fixture
def sending(allow: Allow) -> Iterator[None]:
    """A sender is at work, as in every relay."""
    ended = threading.Event()
    thread = threading.Thread(target=sender.send_for_good, args=(ended,))
    thread.start()
    yield
    ended.set()
    thread.join()


def row(conn: Connection, chain: UUID, columns: Any = "state") -> Any:
    query = sql.SQL("select {} from webhooks where chain_id = %s").format(sql.SQL(columns))
    found = conn.execute(query, (chain,)).fetchone()
    return found and (found[0] if len(found) == 1 else found)


def awaited(conn: Connection, chain: UUID, state: str) -> None:
    wait_until(lambda: row(conn, chain) == state, description=f"the webhook to be {state}")


def tried(conn: Connection, chain: UUID) -> str:
    """It was tried and did not get there; why."""
    return wait_until(
        lambda: row(conn, chain, "error"), timeout=30, description="a try that failed"
    )


def due_now(conn: Connection) -> None:
    conn.execute(
        "update webhooks set try_at = now(), held_until = null where state = 'waiting'"
    )


def ended(conn: Connection, url: str, **more: Any) -> UUID:
    """A chain that has ended and whose request named that address."""
    job = begun(conn, "chat_plan", callback_url=url, **more)
    finish(conn, job)
    return job.chain_id


def test_the_end_of_a_chain_is_told_once_signed_and_as_the_gateway_tells_the_job(
    conn: Connection, sending: None, there: Receiver, dsn: str, redis_url: str, tmp_path: Path
):
    job = begun(conn, callback_url=there.url)
    following = next_job()
    minted = turn(conn, job)
    advance(conn, job, minted, following=following, raw_cost_usd=0.25, result={"text": "made"})
    assert row(conn, job.chain_id) is None, "the chain goes on"
    after = claim(conn, following.id)
    assert after
    finish(conn, after)
    awaited(conn, job.chain_id, "delivered")
    told = there.verified(signing.secrets()[0])
    assert (there.paths, len(there.got)) == (["/hook?to=us"], 1)
    with gateway(dsn, redis_url, tmp_path / "log") as at, at.http as http:
        assert told == http.get(f"/v1/jobs/{job.id}").json()
    assert (told["state"], told["chain_ended"], told["session"]) == ("done", True, minted)


def test_every_way_to_end_a_chain_writes_its_webhook_in_that_commit(
    conn: Connection, allow: Allow, there: Receiver
):
    def of(**more: Any) -> UUID:
        return ask(conn, callback_url=there.url, **more)

    cancelled = of(project="c")
    jobs.cancel(conn, cancelled)
    replaced = of(project="r")
    ask(conn, project="r", busy="replace")
    quarantined = begun(conn, project="q", callback_url=there.url)
    with conn.transaction():
        rescue.rescue(conn, quarantined.id, attempt=quarantined.attempt, limit=1)
        rescue.follow(conn, quarantined.id, following := next_job())
    assert row(conn, quarantined.id) is None, "metadata follows what was set aside"
    jobs.cancel(conn, following.id)
    for chain in (cancelled, replaced, quarantined.id):
        assert row(conn, chain) == "waiting"
    with conn.transaction(force_rollback=True):
        rolled_back = of(project="x")
        jobs.cancel(conn, rolled_back)
    assert row(conn, rolled_back) is None
    again = jobs.again(conn, cancelled)
    assert again
    jobs.cancel(conn, again.id)
    assert row(conn, again.id) == "waiting", "a retry is asked for by the same request"


@pytest.mark.parametrize(
    "url",
    [
        *("https://elsewhere.example/x", "ftp://127.0.0.1/", "//127.0.0.1", "http://", ""),
        *(
            "http://ann:pw@127.0.0.1/",
            "http://127.0.0.1/#x",
            "http://127.0.0.1\\@evil.example/",
        ),
        *("http://127.0.0.1/ x", "http://evil127.0.0.1/", "http://127.0.0.1.evil.example/"),
        "http://127.0.0.1/" + "x" * 2000,
        *(
            "http://127.0.0.1:0/",
            "http://127.0.0.1:65536/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:/",
        ),
    ],
)
def test_an_address_that_may_not_be_told_is_refused_and_nothing_is_written(
    conn: Connection, allow: Allow, url: str
):
    with pytest.raises(BadCallback) as told:
        enqueue(conn, Build(project="p", user="u", prompt="x", callback_url=url))
    assert (told.value.code, told.value.field) == ("bad_callback", "callback_url")
    assert str(told.value).endswith(".")
    with pytest.raises(psycopg.Error) as refused:
        ask(conn, callback_url=url)
    assert refused.value.sqlstate == "BA014"
    assert one(conn, "select count(*) from jobs") == 0


def test_hosts_are_allowed_by_name_or_below_a_name(conn: Connection, allow: Allow):
    allow(hosts="Hooks.Example.com, *.shop.example")
    for url in ("https://hooks.example.com:8443/x", "https://A.b.Shop.example"):
        enqueue(conn, Build(project="p", user="u", prompt="x", callback_url=url))
    for url in ("https://shop.example/", "https://xhooks.example.com/"):
        with pytest.raises(BadCallback):
            enqueue(conn, Build(project="p", user="u", prompt="x", callback_url=url))
    allow(hosts="")
    with pytest.raises(BadCallback, match="BATON_CALLBACK_HOSTS"):
        enqueue(
            conn,
            Build(project="p", user="u", prompt="x", callback_url="https://hooks.example.com/"),
        )


def test_the_command_line_and_http_take_an_address_too(
    conn: Connection,
    allow: Allow,
    baton: Baton,
    dsn: str,
    redis_url: str,
    tmp_path: Path,
):
    url = "https://127.0.0.1/x"
    asked = baton(
        "enqueue", "build", "--project", "p", "--user", "u", "--prompt", "x",
        "--callback-url", url, "--json",
    )  # fmt: skip
    with gateway(dsn, redis_url, tmp_path / "log") as at, at.http as http:
        over_http = at.ask("q", callback_url=url)
        body = {"kind": "build", "project": "q", "user": "ann", "prompt": "x"}
        refused = http.post("/v1/jobs", json=body | {"callback_url": "https://evil.example/"})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_callback")
    for job in (asked.document["id"], over_http):
        assert one(conn, "select callback_url from jobs where id = %s", job) == url


def test_what_fails_is_tried_again_and_given_up_after_a_day(
    conn: Connection, sending: None, there: Receiver, baton: Baton
):
    there.answers = [500, 302, 500]
    chain = ended(conn, there.url)
    assert "answered 500" in tried(conn, chain)
    due_now(conn)
    wait_until(lambda: "redirects" in row(conn, chain, "error"), description="the redirect")
    assert there.paths == ["/hook?to=us"] * 2, "it is not followed"
    (told,) = baton("webhooks", "--json").document
    assert (told["chain"], told["state"], told["tries"]) == (str(chain), "waiting", 2)
    conn.execute("update webhooks set since = now() - interval '25 hours'")
    due_now(conn)
    awaited(conn, chain, "given_up")
    assert "given up" in baton("webhooks").out
    baton("webhooks", "--again")
    awaited(conn, chain, "delivered")
    ids = {headers["webhook-id"] for headers, _ in there.got}
    assert (len(there.got), len(ids)) == (4, 1)
    assert baton("webhooks").out.strip() == "All were delivered."


def test_pauses_grow_to_an_hour_and_end_after_a_day(allow: Allow):
    def pauses(tries: int) -> list[float]:
        due = webhooks.Due(UUID(int=1), "", "", timedelta(), tries)
        return [(sender._pause(due) or timedelta()).total_seconds() for _ in range(50)]  # pyright: ignore[reportPrivateUsage]

    assert all(2.5 <= pause <= 5 for pause in pauses(1))
    assert all(1800 <= pause <= 3600 for pause in pauses(30))
    assert len(set(pauses(3))) > 10, "not all at the same moment"


def test_a_server_that_is_away_is_told_when_it_is_back(
    conn: Connection, sending: None, there: Receiver
):
    with receiver() as gone:
        url = gone.url
    chain = ended(conn, url)
    assert "could not be reached" in tried(conn, chain)
    conn.execute("update webhooks set url = %s", (there.url,))
    due_now(conn)
    awaited(conn, chain, "delivered")


def test_a_server_that_wants_no_more_is_not_asked_again(
    conn: Connection, sending: None, there: Receiver
):
    there.answers = [410]
    chain = ended(conn, there.url)
    awaited(conn, chain, "given_up")


@pytest.mark.parametrize(
    ("host", "networks"),
    [
        ("127.0.0.1", ""),
        ("localhost", ""),
        ("169.254.169.254", "127.0.0.0/8"),
        ("10.0.0.1", "127.0.0.0/8"),
        ("[::1]", "127.0.0.0/8"),
        ("[::ffff:127.0.0.1]", ""),
        ("2130706433", ""),
        ("0.0.0.0", ""),
    ],
)
def test_nothing_is_sent_to_an_address_that_is_not_public(
    conn: Connection, allow: Allow, there: Receiver, host: str, networks: str
):
    allow(hosts=host, networks=networks)
    chain = ended(conn, f"http://{host}:{there.port}/hook")
    ended_event = threading.Event()
    thread = threading.Thread(target=sender.send_for_good, args=(ended_event,))
    thread.start()
    try:
        why = tried(conn, chain)
    finally:
        ended_event.set()
        thread.join()
    assert "BATON_CALLBACK_NETWORKS" in why
    assert there.got == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *(("8.8.8.8", True), ("2606:4700::1111", True), ("192.168.1.1", False)),
        *(("100.64.0.1", False), ("fe80::1", False), ("fd00::1", False), ("224.0.0.1", False)),
        *(("64:ff9b::a9fe:a9fe", False), ("2002:7f00:1::", False), ("ff02::1", False)),
        *(("::ffff:10.0.0.1", False), ("64:ff9b::808:808", True), ("::", False)),
    ],
)
def test_an_address_counts_as_what_it_leads_to(allow: Allow, address: str, public: bool):
    allow(networks="")
    assert addresses.allowed(ip_address(address)) is public


def test_a_host_that_is_allowed_no_more_is_told_nothing(
    conn: Connection, allow: Allow, there: Receiver
):
    chain = ended(conn, there.url)
    allow(hosts="hooks.example.com")
    ended_event = threading.Event()
    thread = threading.Thread(target=sender.send_for_good, args=(ended_event,))
    thread.start()
    try:
        assert "BATON_CALLBACK_HOSTS" in tried(conn, chain)
    finally:
        ended_event.set()
        thread.join()
    assert there.got == []


def test_a_sender_that_is_killed_after_it_was_answered_sends_it_again_under_the_same_id(
    conn: Connection, allow: Allow, there: Receiver, dsn: str, redis_url: str, tmp_path: Path
):
    env = {**os.environ, "REDIS_URL": redis_url, **{
        name: str(os.environ[name])
        for name in ("DATABASE_URL", "BATON_SECRET", "BATON_CALLBACK_HOSTS", "BATON_CALLBACK_NETWORKS")
    }}  # fmt: skip

    def relay() -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-m", "worker.relay"], env=env, cwd=tmp_path)

    first = relay()

    def kill() -> int:
        first.kill()
        first.wait()
        return 204

    there.answers = [kill]
    chain = ended(conn, there.url)
    try:
        assert first.wait(120) == -signal.SIGKILL
    finally:
        first.kill()
        first.wait()
    assert row(conn, chain, "state, tries") == ("waiting", 1)
    assert row(conn, chain, "held_until > now() + interval '30 s'"), "nobody else has it yet"
    due_now(conn)
    second = relay()
    try:
        awaited(conn, chain, "delivered")
    finally:
        second.terminate()
        second.wait()
    ids = [headers["webhook-id"] for headers, _ in there.got]
    assert ids == [f"msg_{chain.hex}"] * 2
    assert there.got[0][1] == there.got[1][1]


def test_many_senders_take_each_once_and_one_host_leaves_room_for_others(
    conn: Connection, allow: Allow, dsn: str
):
    allow(hosts="a.example,b.example")
    for n in range(12):
        ended(conn, "https://a.example/", project=f"a{n}")
    ended(conn, "https://b.example/", project="b")
    found = ledger.at_once(dsn, lambda own: webhooks.take(own, 3), times=4)
    taken = [
        due.chain_id for each in found if not isinstance(each, psycopg.Error) for due in each
    ]
    assert len(taken) == len(set(taken))
    later = {due.host for _ in range(4) for due in webhooks.take(conn, 32)}
    hosts = set(one(conn, "select array_agg(distinct host) from webhooks where tries > 0"))
    assert "b.example" in hosts | later
    assert one(conn, "select count(*) from webhooks where tries = 0") > 0, "a.example waits"


def test_what_is_not_due_costs_a_sender_nothing_and_hides_nothing(conn: Connection):
    """Two hosts that are away with thousands of webhooks, and one whose only one is due and the oldest."""
    conn.execute(
        """
        with new as (select gen_random_uuid() as id, n from generate_series(0, 6000) n), j as (
            insert into jobs (id, chain_id, project_id, user_id, kind, state, finished_at)
            select id, id, 'p', 'u', 'build', 'done', now() from new returning id)
        insert into webhooks (chain_id, project_id, user_id, url, host, since, tries, try_at, error)
        select id, 'p', 'u', 'https://h/', case when n = 0 then 'z.example' else 'a' || n % 2 end,
               now() - case when n = 0 then interval '2 h' else interval '1 h' end, 1,
               now() + case when n = 0 then interval '-2 h' else interval '1 h' end, 'away'
          from new join j using (id)
        """
    )
    conn.execute("vacuum analyze webhooks")
    standing = webhooks.standing(conn)
    assert standing.overdue_s
    assert standing.overdue_s > 7000, "it stands behind the 1000 newest"
    with reading(conn) as read:
        (due,) = webhooks.take(conn, 32)
    assert due.host == "z.example"
    assert read.rows < 50, "of 6001"
    with reading(conn) as read:
        assert webhooks.take(conn, 32) == []
    assert read.rows < 50, "of 6001"


def test_a_certificate_is_for_the_name_and_not_for_the_address_it_leads_to(
    allow: Allow, there: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    allow(hosts="localhost,127.0.0.1")
    signer = Signer.made(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(signer.ca))

    async def sent(port: int, host: str) -> str | None:
        async with client() as http:
            answer = await post(http, f"https://{host}:{port}/", host, "msg_1", "{}")
        return answer.error

    with tls_before(there.port, signer.certificate("127.0.0.1")) as port:
        assert sender.asyncio.run(sent(port, "127.0.0.1")) is None
        assert "could not be reached" in (sender.asyncio.run(sent(port, "localhost")) or "")
    assert len(there.got) == 1


def test_while_the_secret_is_changed_both_sign(
    allow: Allow, there: Receiver, configure: Configure, conn: Connection
):
    old, new = ("whsec_" + letter * 32 for letter in "ab")
    configure(BATON_CALLBACK_SECRET=f"{new},{old}")
    headers = signing.headers("msg_1", "{}")
    for secret in (old, new):
        signing.Webhook(secret).verify("{}", headers)


def test_jobs_are_kept_until_their_webhook_is_delivered(
    conn: Connection, allow: Allow, there: Receiver
):
    chain = ended(conn, there.url)
    conn.execute("update jobs set finished_at = now() - interval '2 days', untold = false")
    upkeep.clear_jobs(conn, timedelta(days=1))
    assert jobs.get(conn, chain)
    (due,) = webhooks.take(conn, 1)
    webhooks.delivered(conn, due, 200)
    upkeep.clear_jobs(conn, timedelta(days=1))
    assert (jobs.get(conn, chain), row(conn, chain)) == (None, None)


def test_the_secret_is_made_of_the_gateways_unless_there_is_one(
    allow: Allow, baton: Baton, configure: Configure
):
    made = baton("webhooks", "--secret").out.strip()
    assert made.startswith("whsec_")
    assert [made] == signing.secrets()
    configure(BATON_CALLBACK_SECRET="whsec_" + "a" * 32)
    assert baton("webhooks", "--secret").out.strip() == "whsec_" + "a" * 32
    assert settings().callback_secret.get_secret_value() not in repr(settings())
