"""Agents in their box reach their model and nothing else, and have no key: with the real CLI."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config import egress
from tests.boxes import in_box
from tests.conftest import Configure
from tests.egress import proxy
from tests.machine import needs_bubblewrap
from tests.running import AtWork
from worker.cli.doctor import host
from worker.sandbox import network
from worker.sandbox.bridge import PORT

KEY = "sk-the-real-one"
PYTHON = f"{Path(sys.executable).resolve()} -I -S"
# What a program in the box can reach: host and port a line, as arguments.
REACHES = """
import socket, sys
def tried(family, host, port):
    try:
        with socket.socket(family) as s:
            s.settimeout(3)
            s.connect((host, port))
            return s.getsockname() != s.getpeername()  # it may find itself
    except OSError:
        return False
for host, port in zip(sys.argv[1::2], sys.argv[2::2]):
    for family in (socket.AF_INET, socket.AF_INET6):
        if tried(family, host, int(port)):
            print("OUT", host, port)
for number in range(1, 65536):
    if number != %(port)d and tried(socket.AF_INET, "127.0.0.1", number):
        print("OUT loopback", number)
for name in ("localhost", "example.com", "metadata.google.internal"):
    try:
        found = {one[4][0] for one in socket.getaddrinfo(name, 443)}
    except OSError:
        continue
    if not found <= {"127.0.0.1", "::1"}:
        print("OUT", name, found)
try:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\\0" + "%(abstract)s")
    print("OUT abstract socket")
except OSError:
    pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(1)
    try:
        s.sendto(b"x", ("192.0.2.1", 53))
        print("OUT datagram")
    except OSError:
        pass
print("ended")
"""
# Asks the model by itself, with the turn's token, until it is told no; says the status.
SPENDS = """
import json, os, urllib.error, urllib.request
asked = {"model": "claude-opus-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "say " + "x" * 40000}]}
to = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
headers = {"x-api-key": os.environ["ANTHROPIC_API_KEY"]}
try:
    for _ in range(500):
        urllib.request.urlopen(urllib.request.Request(to, json.dumps(asked).encode(), headers)).read()
except urllib.error.HTTPError as exc:
    open("status.txt", "w").write(str(exc.code))
"""


@contextmanager
def listening(family: int, address: str) -> Generator[int]:
    """The port of a server of this host."""
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        yield server.getsockname()[1]


def own_address() -> str:
    """An address of this host that is not loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return asking.getsockname()[0]


@needs_bubblewrap
def test_no_host_no_port_and_no_name_is_reached_from_a_box(at_work: AtWork):
    at_work.place.mkdir(parents=True)
    here = own_address()
    with (
        socket.socket(socket.AF_UNIX) as abstract,
        listening(socket.AF_INET, "0.0.0.0") as port,
        listening(socket.AF_INET6, "::1") as port6,
    ):
        abstract.bind(f"\0baton-test-{os.getpid()}")
        abstract.listen()
        text = REACHES % {"port": PORT, "abstract": f"baton-test-{os.getpid()}"}
        (at_work.place / "reach.py").write_text(text)
        targets = ["127.0.0.1", port, here, port, "::1", port6, "127.0.0.1", at_work.model.port]
        told = in_box(f"{PYTHON} reach.py {' '.join(map(str, targets))}", at_work.place)
    assert told == ["ended"]


@needs_bubblewrap
def test_nothing_in_a_box_has_the_key_and_the_model_is_asked_with_it(at_work: AtWork):
    at_work.configure(ANTHROPIC_API_KEY=KEY, ANTHROPIC_AUTH_TOKEN="sk-bearing")
    look = (
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline > all.txt 2>/dev/null;"
        " find $CLAUDE_CONFIG_DIR /home /run /etc -type f -exec cat {} + >> all.txt 2>/dev/null;"
        " env >> all.txt"
    )
    with proxy():  # with the key
        job = at_work.build(f"run: {look}")
    assert job.state == "done", job.error
    assert hashlib.sha256(KEY.encode()).hexdigest()[:12] in {
        one.key for one in at_work.model.requests
    }
    found = (at_work.place / "all.txt").read_bytes()
    assert found.count(b"ANTHROPIC_API_KEY=") > 2
    assert KEY.encode() not in found
    assert b"sk-bearing" not in found


@needs_bubblewrap
def test_hosts_on_the_list_are_reached_by_tools_of_the_box_and_told_of(at_work: AtWork):
    model = f"127.0.0.1:{at_work.model.port}"  # any server would do
    at_work.configure(BATON_EGRESS=model)
    ask = "curl -sS -m 20 --noproxy none -p -o /dev/null -w '%{http_connect} %{http_code}\\n'"
    with proxy():
        job = at_work.build(
            f"run: {ask} http://{model}/ > said.txt; {ask} http://evil.example/; true"
        )
    assert job.state == "done", job.error
    assert (at_work.place / "said.txt").read_text() == "200 200\n"
    assert [one["host"] for one in at_work.events("egress.allowed")] == [model]
    assert [one["host"] for one in at_work.events("egress.refused")] == ["evil.example:80"]


def test_an_agent_that_spends_by_itself_is_stopped_at_its_budget(at_work: AtWork):
    at_work.place.mkdir(parents=True)
    (at_work.place / "spend.py").write_text(SPENDS)
    job = at_work.build(f"run: {PYTHON} spend.py", budget=0.5)
    assert (job.state, job.error_class, job.attempts) == ("failed", "budget_exhausted", 1)
    assert (at_work.place / "status.txt").read_text() == "432"
    spent = at_work.value("select spent_usd from turns")
    assert 0.5 <= spent < 0.7


def test_a_job_waits_while_no_proxy_answers(
    at_work: AtWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    at_work.configure(BATON_EGRESS_HOME=str(tmp_path / "nowhere"))
    monkeypatch.setattr(network, "WAIT", 0.2)
    job = at_work.build("say hello")
    assert (job.state, job.error_class, job.attempts) == ("queued", "egress_away", 0)
    assert "start `egress` of the Procfile" in (job.error or "")
    check = host.egress_proxy()
    assert check.state == "warn"
    assert at_work.model.requests == ()


def test_without_a_box_the_key_stays_with_the_proxy_all_the_same(at_work: AtWork):
    at_work.configure(ANTHROPIC_API_KEY=KEY, BATON_SANDBOX="off")
    with proxy():
        job = at_work.build(
            "run: env > env.txt; tr '\\0' '\\n' < /proc/$PPID/environ >> env.txt"
        )
    assert job.state == "done", job.error
    told = (at_work.place / "env.txt").read_text()
    assert "ANTHROPIC_BASE_URL=http://127.0.0.1:" in told
    assert KEY not in told
    assert at_work.model.requests[-1].key == hashlib.sha256(KEY.encode()).hexdigest()[:12]


def test_a_request_waits_for_a_proxy_that_starts_anew(at_work: AtWork, tmp_path: Path):
    """Deployed, or killed and started again by its supervisor, in the middle of a turn."""
    at_work.configure(BATON_EGRESS_HOME=str(tmp_path / "egress"))
    egress.make_home()
    asks = (
        "import os, urllib.error, urllib.request\n"
        "print('asks', flush=True)\n"
        "try: urllib.request.urlopen(os.environ['ANTHROPIC_BASE_URL'])\n"
        "except urllib.error.HTTPError as exc: print(exc.code)\n"
    )
    with subprocess.Popen(
        [*network.bridge(boxed=False), sys.executable, "-c", asks],
        env={**os.environ, "ANTHROPIC_API_KEY": "t"},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout
        assert program.stdout.readline() == "asks\n"
        with proxy():
            assert program.stdout.readline() == "401\n"
            assert program.wait(20) == 0


@pytest.mark.parametrize(
    ("given", "seen"),
    [({}, ["t", None]), ({"_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL": "1"}, [None, "t"])],
)
def test_the_token_is_a_bearer_where_the_cli_would_ask_anthropic_with_a_key(
    tmp_path: Path, given: dict[str, str], seen: list[str | None], configure: Configure
):
    configure(BATON_EGRESS_HOME=str(tmp_path / "egress"))
    egress.make_home()
    names = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
    tells = f"import json, os; print(json.dumps([os.environ.get(n) for n in {names}]))"
    done = subprocess.run(
        [*network.bridge(boxed=False), sys.executable, "-c", tells],
        env={"ANTHROPIC_API_KEY": "t", **given},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == seen
