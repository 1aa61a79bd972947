"""The egress proxy at its socket: whose a request is, what it may reach, what it may spend."""

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from psycopg import Connection

from config import egress
from db.jobs.attempts import Claimed
from db.sessions import tokens
from dev.standin.server import Standin, standin
from egress.answers import ENDED, SPENT
from tests import ledger
from tests.conftest import Configure
from tests.egress import proxy
from tests.waiting import wait_until

KEY = "sk-the-real-one"
ASK: dict[str, Any] = {
    "model": "claude-opus-5-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "say hello"}],
}


class AtSocket(HTTPConnection):
    """A client at the proxy's socket; the fixture closes it."""

    made: ClassVar[list["AtSocket"]] = []

    def __init__(self) -> None:
        super().__init__("proxy")
        self.made.append(self)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        with egress.by_short_name(egress.home()) as path:
            self.sock.connect(path)


@dataclass
class Agent:
    """Who has a turn's token."""

    conn: Connection
    job: Claimed
    token: str

    def beside(self, *, budget: float, **whose: Any) -> "Agent":
        """Another whose turn runs at the same time."""
        job, token = ledger.begun(self.conn, **whose), tokens.fresh()
        ledger.turn(self.conn, job, token=token, budget_usd=budget)
        return Agent(self.conn, job, token)

    def spent(self) -> int:
        """How many turns have spent something."""
        return self.conn.execute("select from turns where spent_usd > 0").rowcount

    def ask(self, path: str = "/v1/messages", **more: Any) -> tuple[int, dict[str, Any]]:
        answer, body = self.asked(path, **more)
        return answer.status, json.loads(body or b"{}")

    def asked(self, path: str, **more: Any) -> tuple[HTTPResponse, bytes]:
        client = AtSocket()
        client.request("POST", path, json.dumps(ASK | more), {"x-api-key": self.token})
        answer = client.getresponse()
        return answer, answer.read()

    @property
    def proves(self) -> dict[str, str]:
        coded = base64.b64encode(f"turn:{self.token}".encode()).decode()
        return {"Proxy-Authorization": f"Basic {coded}"}

    def connect(self, target: str) -> int:
        """The status of a CONNECT."""
        return self.on(AtSocket(), "CONNECT", target)

    def on(self, client: HTTPConnection, method: str, target: str) -> int:
        """The status of a request on a connection, which stays open."""
        client.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": "any", **self.proves}.items():
            client.putheader(name, value)
        client.endheaders()
        answer = client.getresponse()
        if method != "CONNECT" or answer.status != 200:
            answer.read()
        return answer.status

    def through(self, target: str, data: bytes) -> bytes:
        """What comes back through a tunnel, after the proxy's own answer."""
        client = AtSocket()
        client.connect()
        proof = f"Proxy-Authorization: {self.proves['Proxy-Authorization']}"
        client.sock.sendall(
            f"CONNECT {target} HTTP/1.1\r\nHost: any\r\n{proof}\r\n\r\n".encode()
        )
        client.sock.sendall(data)  # at once, as some clients do
        with client.sock.makefile("rb") as answer:
            own, _, rest = answer.read().partition(b"\r\n\r\n")
        assert own.startswith(b"HTTP/1.1 200"), own
        return rest

    def told(self) -> list[tuple[str, str, str | None]]:
        """Events of the proxy: type, host, why."""
        rows = self.conn.execute(
            "select type, body ->> 'host', body ->> 'why' from events"
            " where type like 'egress.%' order by seq"
        )
        return rows.fetchall()


@pytest.fixture
def model() -> Iterator[Standin]:
    with standin(scenario="plain", speed=0) as running:
        yield running


Begin = Callable[..., Agent]


@pytest.fixture
def agent(dsn: str, conn: Connection, configure: Configure, model: Standin) -> Generator[Begin]:
    """`agent(budget=…, BATON_EGRESS=…)`: an agent whose turn runs, and a proxy with that list."""
    stays = list[Any]()

    def begin(budget: float | None = None, **env: str) -> Agent:
        configure(DATABASE_URL=dsn, ANTHROPIC_BASE_URL=model.url, ANTHROPIC_API_KEY=KEY, **env)
        running = proxy()
        running.__enter__()
        stays.append(running)
        job, token = ledger.begun(conn), tokens.fresh()
        ledger.turn(conn, job, token=token, budget_usd=budget)
        return Agent(conn, job, token)

    yield begin
    while AtSocket.made:
        AtSocket.made.pop().close()
    for running in reversed(stays):
        running.__exit__(None, None, None)


class Handler(BaseHTTPRequestHandler):
    """Answers everything with one word."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def web() -> Generator[int]:
    """The port of a server on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_model_is_asked_with_the_key_and_the_agent_has_a_token(
    agent: Begin, model: Standin
):
    one = agent()
    status, told = one.ask()
    assert (status, told["content"][0]["text"]) == (200, "hello")
    (seen,) = model.requests
    assert seen.key == hashlib.sha256(KEY.encode()).hexdigest()[:12]
    assert one.conn.execute("select token_hash from turns").fetchone() == (
        tokens.digest(one.token),
    )


def test_a_stream_comes_as_it_is_sent(agent: Begin):
    answer, body = agent().asked("/v1/messages?beta=true", stream=True)
    assert answer.getheader("content-type") == "text/event-stream"
    assert body.startswith(b"event: message_start")
    assert body.rstrip().endswith(b'{"type": "message_stop"}')


def test_a_bearer_token_of_the_workers_goes_to_the_model(
    agent: Begin, model: Standin, configure: Configure
):
    one = agent(ANTHROPIC_AUTH_TOKEN="bearing")
    configure(ANTHROPIC_API_KEY=None)
    with proxy():  # takes the place of the other
        assert one.ask()[0] == 200
    assert model.requests[-1].key == hashlib.sha256(b"bearing").hexdigest()[:12]


@pytest.mark.parametrize(
    "end",
    [
        "update turns set outcome = 'failed'",
        "update jobs set lease_until = now() - interval '1 second'",
        "update jobs set attempt = gen_random_uuid()",
    ],
)
def test_a_token_ends_with_its_turn_its_lease_and_its_attempt(
    agent: Begin, model: Standin, end: str
):
    one = agent()
    assert one.ask()[0] == 200
    one.conn.execute(end.encode())
    status, told = one.ask()
    assert (status, told["type"]) == (ENDED, "error")
    assert one.connect("127.0.0.1:1") == ENDED
    assert len(model.requests) == 1


def test_nobody_reaches_anything_without_a_token(agent: Begin, model: Standin):
    stranger = agent()
    stranger.token = "another"
    assert stranger.ask()[0] == ENDED
    assert stranger.connect("127.0.0.1:1") == ENDED
    client = AtSocket()
    client.request("POST", "/v1/messages", "{}")
    assert client.getresponse().status == 401
    client = AtSocket()
    client.request("CONNECT", "127.0.0.1:1")
    assert client.getresponse().status == 407
    assert model.requests == ()


@pytest.mark.parametrize(
    "path",
    ["/v1/messages/batches", "/v1/files", "/v1/messages/../files", "/v1//messages", "/x"],
)
def test_the_key_is_good_for_messages_and_nothing_else(agent: Begin, model: Standin, path: str):
    assert agent().ask(path)[0] == 404
    assert (model.requests, model.unknown) == ((), ())


def test_a_turn_over_its_budget_is_refused_and_another_proxy_knows_it(
    agent: Begin, model: Standin
):
    one = agent(budget=1e-6)
    assert one.asked("/v1/messages", stream=True)[0].status == 200
    status, told = one.ask()
    assert (status, told["error"]["type"]) == (SPENT, "permission_error")
    assert "budget of 1e-06 USD" in told["error"]["message"]
    spent = one.conn.execute("select spent_usd from turns").fetchone()
    assert spent
    assert spent[0] > 1e-6
    with proxy():
        assert one.ask()[0] == SPENT
    assert len(model.requests) == 1


# Of each budget: whether it is a turn's of the same job's, project's, user's, account's too.
SHARED: dict[str, dict[str, Any]] = {
    "USER": {"project": "q"},
    "ACCOUNT": {"project": "q", "user_id": "bob"},
    "DAY": {"project": "q", "user_id": "bob"},
}


@pytest.mark.parametrize("scope", SHARED)
def test_turns_that_run_at_once_spend_one_budget_together(
    agent: Begin, model: Standin, scope: str
):
    """Each has been told at its beginning that all of it is left. What they go over by is a
    request of each at the most, and is in the books."""
    first = agent(budget=2, **{f"BATON_BUDGET_{scope}_USD": "2"})
    first.conn.execute("insert into account_projects values ('p', 'acme'), ('q', 'acme')")
    other = first.beside(budget=2, **SHARED[scope])
    stranger = first.beside(budget=2, project="r", user_id="eve")
    costly = [{"role": "user", "content": "word " * 40_000}]  # some 1.5 USD

    asked = [one.ask(messages=costly)[0] for one in (first, other)]
    wait_until(lambda: first.spent() == 2, description="both to be charged")
    refused = [one.ask() for one in (first, other)]

    assert asked == [200, 200]
    assert [status for status, _ in refused] == [SPENT, SPENT]
    assert all(f"BATON_BUDGET_{scope}_USD" in told["error"]["message"] for _, told in refused)
    assert stranger.ask()[0] == (SPENT if scope == "DAY" else 200)
    assert len(model.requests) == (2 if scope == "DAY" else 3)


def test_without_a_budget_nothing_is_counted(agent: Begin):
    one = agent()
    assert one.ask()[0] == 200
    assert one.conn.execute("select spent_usd from turns").fetchone() == (None,)


def test_an_agent_that_goes_leaves_no_request_behind(agent: Begin, model: Standin):
    one = agent(budget=1.0)
    model.fault("hang")
    client = AtSocket()
    client.request("POST", "/v1/messages", json.dumps(ASK), {"x-api-key": one.token})
    wait_until(lambda: model.requests, description="the model to be asked")
    client.close()
    wait_until(lambda: not _connected_to(model.port), description="the request's end")
    spent = "select spent_usd from turns where spent_usd > 0"
    wait_until(lambda: one.conn.execute(spent).fetchone(), description="what it cost")


def _connected_to(port: int) -> bool:
    import psutil

    found = psutil.Process().net_connections("tcp")
    return any(
        one.raddr and one.raddr.port == port and one.status == "ESTABLISHED" for one in found
    )


def test_hosts_on_the_list_are_reached_and_told_of_once(agent: Begin):
    with web() as port:
        one = agent(BATON_EGRESS=f"127.0.0.1:{port}")
        for _ in range(2):
            assert one.through(f"127.0.0.1:{port}", b"GET / HTTP/1.0\r\n\r\n").endswith(
                b"hello"
            )
        for _ in range(2):
            assert one.connect("evil.example:443") == 403
    assert one.told() == [
        ("egress.allowed", f"127.0.0.1:{port}", None),
        ("egress.refused", "evil.example:443", "not_listed"),
    ]


def test_each_request_of_a_connection_is_judged_anew(agent: Begin):
    with web() as port, web() as other:
        one = agent(BATON_EGRESS=f"127.0.0.1:{port}")
        client = AtSocket()
        assert one.on(client, "CONNECT", "evil.example:443") == 403
        assert one.on(client, "GET", f"http://127.0.0.1:{port}/") == 200
        assert one.on(client, "GET", f"http://127.0.0.1:{other}/") == 403
        assert one.on(client, "GET", f"http://127.0.0.1:{port}/again") == 200
        assert one.on(client, "CONNECT", f"127.0.0.1:{other}") == 403
        assert one.on(client, "CONNECT", f"127.0.0.1:{port}") == 200


def test_another_port_of_a_host_on_the_list_is_refused(agent: Begin):
    with web() as port:
        one = agent(BATON_EGRESS="127.0.0.1")
        assert one.connect(f"127.0.0.1:{port}") == 403
        assert one.told() == [("egress.refused", f"127.0.0.1:{port}", "port")]


def test_a_name_that_leads_to_a_private_address_is_refused_unless_that_is_named(
    agent: Begin, configure: Configure
):
    with web() as port:
        one = agent(BATON_EGRESS=f"localhost:{port}")
        assert one.connect(f"localhost:{port}") == 403
        assert one.told() == [("egress.refused", f"localhost:{port}", "private")]
        configure(BATON_EGRESS=f"localhost:{port},127.0.0.1:{port}")
        with proxy():
            assert one.connect(f"localhost:{port}") == 200


@pytest.mark.parametrize(
    "target",
    [
        *("2130706433:{}", "0x7f.1:{}", "0177.0.0.1:{}", "127.1:{}", "127.0.0.1.:{}"),
        *(
            "[::ffff:127.0.0.1]:{}",
            "user@127.0.0.1:{}",
            "evil.example@127.0.0.1:{}",
            "[::1]:{}",
        ),
    ],
)
def test_an_address_in_another_form_is_not_that_of_the_list(agent: Begin, target: str):
    with web() as port:
        one = agent(BATON_EGRESS=f"127.0.0.1:{port}")
        assert one.connect(target.format(port)) == 403
        assert [kind for kind, _, _ in one.told()] == ["egress.refused"]


@pytest.mark.parametrize(
    "raw",
    [
        b"CONNECT evil\0.127.0.0.1:443 HTTP/1.1\r\n\r\n",
        b"CONNECT a b HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
    ],
)
def test_what_is_no_http_is_cut_off(agent: Begin, raw: bytes):
    agent(BATON_EGRESS="127.0.0.1:443")
    client = AtSocket()
    client.connect()
    client.sock.sendall(raw)
    client.sock.shutdown(socket.SHUT_WR)
    assert client.sock.recv(1000) in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_model_that_is_away_is_a_connection_that_breaks(agent: Begin, model: Standin):
    one = agent()
    model.stop()
    with pytest.raises(ConnectionError):
        one.ask()
    model.start()
    assert one.ask()[0] == 200


def test_the_last_proxy_takes_its_name_away_and_an_earlier_one_does_not(agent: Begin):
    agent()
    with proxy():
        assert egress.listens()
    assert not egress.listens()
