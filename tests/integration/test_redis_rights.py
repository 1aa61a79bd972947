"""Redis' users: a plain producer's Celery sends its message and can do nothing else; our own
processes need less than everything; nobody comes in without a password."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import NoPermissionError

from dev.stack.embedded import open_redis
from dev.stack.processes import LOOPBACK
from dev.stack.server import Server
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.conftest import Configure
from tests.running import AtWork, P, U
from tests.running import at_work as at_work
from worker.app import app
from worker.broker.connection import Connection, address
from worker.client import Build
from worker.live.checkpoints import BROKER, CHECKPOINTS, client

SOMEBODYS = "0d7f3c0a-8f0e-4f5c-9f06-000000000000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with open_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def full(server: Server) -> Iterator["redis.Redis"]:
    """Redis as our own processes see it, empty."""
    with redis.Redis.from_url(server.url, decode_responses=True) as found:
        found.flushall()
        yield found


@pytest.fixture
def plain(server: Server, full: "redis.Redis") -> Iterator["redis.Redis"]:
    """Redis as a plain producer sees it."""
    with redis.Redis.from_url(server.plain_url, decode_responses=True) as found:
        yield found


def celery(server: Server) -> Celery:
    """A producer's Celery, which knows nothing of us."""
    strange = Celery(broker=server.plain_url, set_as_current=False)
    strange.conf.update(task_send_sent_event=True, broker_connection_retry=False)
    return strange


@pytest.mark.parametrize(("priority", "where"), [(None, "celery"), (5, "celery\x06\x163")])
def test_a_plain_celery_sends_its_message(
    server: Server, full: "redis.Redis", priority: int | None, where: str
):
    with celery(server) as strange:
        asked = {"project_id": "shop", "user_id": "ann", "prompt": "x"}
        sent = strange.send_task("tasks.build", kwargs=asked, priority=priority)
    (message,) = full.lrange(where, 0, -1)  # pyright: ignore[reportGeneralTypeIssues]
    assert sent.id in str(message)


WAITS = """
import sys
from celery import Celery
from celery.exceptions import TimeoutError

with Celery(broker=sys.argv[1], backend=sys.argv[1]) as app:
    sent = app.send_task("tasks.build", kwargs={"project_id": "shop"})
    assert sent.state == "PENDING"
    try:
        sent.get(timeout=0.1)
    except TimeoutError:
        print("in vain")
"""


def test_one_that_asks_for_results_may_send_too_and_waits_for_them_in_vain(
    server: Server, full: "redis.Redis"
):
    # A process of its own: results that are waited for hold on to Redis until they are forgotten.
    command = [sys.executable, "-c", WAITS, server.plain_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("in vain\n", "")
    assert full.llen("celery") == 1


@pytest.mark.parametrize("queue", ["baton", "upkeep", "other"])
def test_a_plain_celery_reaches_no_other_queue(server: Server, full: "redis.Redis", queue: str):
    with celery(server) as strange, pytest.raises(OperationalError, match="No permissions"):
        strange.send_task("tasks.build", queue=queue, retry=False)
    assert full.keys("*") == []


def test_a_plain_celery_commands_no_worker(server: Server, full: "redis.Redis"):
    with celery(server) as strange:
        for command in (strange.control.shutdown, strange.control.ping):
            with pytest.raises((OperationalError, NoPermissionError)):
                command()
        with pytest.raises((OperationalError, NoPermissionError)):
            strange.control.revoke(SOMEBODYS, terminate=True)
    assert full.keys("*") == []


REFUSED = (
    *("LPUSH baton x", "RPUSH celery x", "LPUSH upkeep x", "LPUSH unacked x"),
    *("SADD celery x", "LPUSH _kombu.binding.celery x", "SADD _kombu.binding.baton x"),
    *("SADD _kombu.binding.celery.pidbox x", "SMEMBERS _kombu.binding.celery.pidbox"),
    *("LRANGE celery 0 -1", "RPOP celery", "BRPOP celery 1", "LINDEX celery 0", "DEL celery"),
    *("HGETALL unacked", "EXPIRE celery 1", "RENAME celery gone", "GET celery", "TYPE celery"),
    *(f"GET claude:session:{SOMEBODYS}", f"XRANGE progress:{SOMEBODYS} - +"),
    *("XREAD STREAMS events:shop 0", "XADD events:shop * a b", f"GET silent:{SOMEBODYS}"),
    *("PUBLISH /0.celery.pidbox x", "PUBLISH baton:bell x", "PUBLISH celery-task-meta-a x"),
    *("SUBSCRIBE baton:bell", "PSUBSCRIBE *", "PSUBSCRIBE celery-task-meta-*", "PUBSUB CHANNELS"),
    *("SET celery-task-meta-a x", "PUBLISH /0.celeryev/task.succeeded x"),
    *("KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "EXISTS celery", "SELECT 1", "SWAPDB 0 1"),
    *("FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET dir /", "SAVE", "SHUTDOWN", "INFO"),
    *("ACL LIST", "ACL WHOAMI", "CLIENT LIST", "CLIENT KILL TYPE normal", "MONITOR"),
    *("SLOWLOG GET", "EVAL return(1) 0", "FUNCTION LIST", "SCRIPT FLUSH", "DEBUG OBJECT celery"),
    *("OBJECT ENCODING celery", "DUMP celery", "MEMORY USAGE celery", "SORT celery", "MODULE LIST"),
    *("REPLICAOF 127.0.0.1 1", "MIGRATE 127.0.0.1 1 celery 0 1", "COPY celery c", "WAIT 0 0"),
)  # fmt: skip


def test_a_plain_producer_may_do_nothing_else(plain: "redis.Redis"):
    taken: list[str] = []
    for command in REFUSED:
        try:
            plain.execute_command(*command.split())
        except NoPermissionError:
            continue
        taken.append(command)
    assert taken == []


def test_nobody_comes_in_without_a_password(server: Server):
    where = server.url.rpartition("@")[2]
    for who in ("", ":wrong@", "default:wrong@", "producer:wrong@"):
        with (
            redis.Redis.from_url(f"redis://{who}{where}") as found,
            pytest.raises(redis.AuthenticationError),
        ):
            found.ping()


def test_passwords_are_in_files_for_their_owner_only_and_in_no_argument(tmp_path: Path):
    with open_redis(tmp_path) as running:
        secrets = [
            (tmp_path / "redis" / name).read_text()
            for name in ("password", "producer-password")
        ]
        for name in ("password", "producer-password", "users.acl"):
            assert (tmp_path / "redis" / name).stat().st_mode & 0o777 == 0o600, name
        assert running.process
        arguments = Path(f"/proc/{running.process.pid}/cmdline").read_text()
        rules = (tmp_path / "redis" / "users.acl").read_text()
        assert not [one for one in secrets if one in arguments + rules]
        assert len(set(secrets)) == 2
    with open_redis(tmp_path) as again:
        assert again.url == running.url
        assert again.plain_url == running.plain_url


@pytest.fixture
def own(bare: Baton, full: "redis.Redis", server: Server) -> Iterator[str]:
    """The URL of a user with the rights that `baton redis-acl` prints for our own processes."""
    printed = bare("redis-acl", "--json").document
    for line in printed["lines"]:
        full.execute_command("ACL", "SETUSER", *line.removeprefix("user ").split())
    where = server.url.rpartition("@")[2]
    yield f"redis://baton:{printed['passwords']['baton']}@{where}"
    full.acl_deluser("baton", "baton-producer")


def test_the_rules_that_are_printed_are_those_that_hold_here(
    own: str, full: "redis.Redis", bare: Baton
):
    there = {line.split()[1]: line.split()[4:] for line in _listed(full)}
    assert there["baton-producer"] == there["producer"]
    first, second = bare("redis-acl"), bare("redis-acl")
    assert (first.code, len(first.out.splitlines())) == (0, 2)
    assert first.out != second.out, "each time with new passwords"
    (shown,) = [line for line in first.out.splitlines() if "baton-producer" in line]
    password = shown.split()[3].removeprefix(">")
    assert f"BATON_PLAIN_BROKER_URL=redis://baton-producer:{password}@" in first.err


def _listed(full: "redis.Redis") -> list[str]:
    found: Any = full.acl_list()
    return found


@pytest.mark.agent("direct")
def test_our_own_processes_work_with_the_rights_that_are_printed_for_them(
    own: str, at_work: AtWork, full: "redis.Redis"
):
    at_work.configure(REDIS_URL=own)
    app.conf.update(address())
    first, *rest = at_work.chain(Build(project=P, user=U, prompt="write a.txt: hello"))
    assert (first.state, len(rest)) == ("done", 2)
    assert client(BROKER).info("memory")
    assert client(CHECKPOINTS).get(f"claude:session:{first.chain_id}")
    refused: Any = full.acl_log()
    assert [one for one in refused if one["username"] == "baton"] == []
    for command in ("FLUSHALL", "CONFIG GET *", "KEYS *", "ACL LIST", "SHUTDOWN", "MONITOR"):
        with pytest.raises(NoPermissionError):
            client(BROKER).execute_command(*command.split())


@pytest.mark.parametrize("exchange", ["", "celery", "elsewhere"])
def test_a_message_goes_back_into_its_own_queue_whatever_it_says_of_itself(
    exchange: str, server: Server, full: "redis.Redis", configure: Configure
):
    """A plain producer writes the message, and may write to the list of what is bound."""
    for key in ("_kombu.binding.celery", "_kombu.binding.elsewhere"):
        full.sadd(key, "\x06\x16".join(["unacked_index", "", "unacked_index"]))
    configure(REDIS_URL=server.url)
    about = {
        "delivery_tag": "t",
        "delivery_info": {"exchange": exchange, "routing_key": "unacked_index"},
    }
    full.lpush("celery", _message(about))
    with Connection(server.url) as broker:
        got = _taken(broker)
        got.reject(requeue=True)
    found: Any = full
    assert list(found.scan_iter(_type="list")) == ["celery"]
    assert full.llen("celery") == 1


def _message(properties: dict[str, Any]) -> str:
    said: dict[str, Any] = {
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {},
    }
    return json.dumps(said | {"body": "[]", "properties": properties})


def _taken(broker: Connection) -> Any:
    """The next message of the queue `celery`."""
    got: list[Any] = []
    queue = app.amqp.queues["celery"]

    def take(_body: Any, message: Any) -> None:
        got.append(message)

    with broker.Consumer([queue], callbacks=[take]):
        while not got:
            broker.drain_events(timeout=5)
    return got[0]


def test_ours_is_on_loopback_only(server: Server, full: "redis.Redis"):
    assert full.config_get("bind") == {"bind": LOOPBACK}
