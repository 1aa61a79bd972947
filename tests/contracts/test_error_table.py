"""Each row of the error table (docs/errors.md), provoked on the real CLI.

What the job does about it is asserted, and that no failure moves the head or tells
people an id or a secret.
"""

import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import claude_agent_sdk
import psycopg
import pytest

from config.settings import settings
from db.jobs.jobs import NEVER, Job
from tests.conftest import Configure
from tests.egress import proxy
from tests.running import AtWork, P, U
from worker.agent.claude import _translated  # pyright: ignore[reportPrivateUsage]
from worker.agent.failures import Report
from worker.client import Build

UNSAFE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-|sk-|req_|\{|Traceback")


@dataclass(frozen=True)
class Row:
    """A fault and what comes of it. `state`: queued (to be tried again), parked or failed."""

    fault: str
    state: str
    error_class: str
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    wait: float | None = None  # seconds that a parked job waits; None: until it is cleared


ON_A_FRESH_SESSION = [
    Row("401", "parked", "authentication_failed"),
    Row("404", "failed", "model_not_found"),
    Row("400", "failed", "request_refused"),
    Row("429", "parked", "rate_limit", {"retry": False}, wait=60),
    Row("529", "queued", "overloaded"),
    Row("cut", "queued", "unreachable"),
]
ALIKE = [  # what comes to a class as one of the above does
    Row("credit", "parked", "billing_error"),
    Row("403", "parked", "authentication_failed"),
    Row("413", "failed", "request_too_large"),
    Row("too_long", "failed", "prompt_too_long"),
    Row("429", "parked", "rate_limit", {"retry_after": 40}, wait=60),
    Row("500", "queued", "server_error"),
    Row("reset", "queued", "unreachable"),
    Row("unfinished", "queued", "malformed_response"),
    Row("error_event", "queued", "malformed_response"),
    Row("garbage", "queued", "malformed_response"),
]


@pytest.mark.parametrize(
    "row",
    [*ON_A_FRESH_SESSION, *(pytest.param(row, marks=pytest.mark.long) for row in ALIKE)],
    ids=lambda row: f"{row.fault}{row.more}",
)
def test_a_first_build_that_meets(row: Row, at_work: AtWork):
    at_work.model.fault(row.fault, times=-1, **row.more)
    job = at_work.build("write a.txt: 1")
    assert (job.state, job.error_class) == (row.state, row.error_class)
    spent = 0 if row.state == "parked" else 1
    assert job.attempts == spent
    assert at_work.head() is None
    assert_fit_for_people(job)
    assert_waits(job, row)


def assert_fit_for_people(job: Job) -> None:
    text = job.error or ""
    assert text.endswith(".")
    assert 10 < len(text) < 300
    assert not UNSAFE.search(text), text


def assert_waits(job: Job, row: Row) -> None:
    match row.state:
        case "failed":
            assert job.finished_at
        case "queued":
            assert (job.run_at - datetime.now(UTC)).total_seconds() < 16
        case _ if row.wait is None:
            assert job.run_at == NEVER
        case _:
            left = (job.run_at - datetime.now(UTC)).total_seconds()
            assert row.wait - 30 < left <= row.wait


def test_a_long_retry_after_is_waited_for_outside_of_the_worker(at_work: AtWork):
    at_work.configure(BATON_CLI_RETRIES="2")
    at_work.model.fault("429", times=-1, retry_after=20)
    job = at_work.build("write a.txt: 1")
    assert (job.state, job.error_class) == ("parked", "rate_limit")
    assert 0 < (job.run_at - datetime.now(UTC)).total_seconds() <= 26
    assert len(at_work.model.requests) == 1


def test_a_short_retry_after_is_waited_for_by_the_cli(at_work: AtWork):
    at_work.configure(BATON_CLI_RETRIES="2")
    at_work.model.fault("429", retry_after=0.2)
    assert at_work.build("write a.txt: 1").state == "done"


def test_a_limit_is_told_of_once_for_many_jobs(at_work: AtWork):
    at_work.model.fault("401", times=-1)
    first = at_work.build("write a.txt: 1")
    others = [
        at_work.one(Build(project=f"other-{n}", user=U, prompt="write a.txt: 1"))
        for n in range(3)
    ]
    assert [job.state for job in (first, *others)] == ["parked"] * 4
    assert len(at_work.model.requests) == 1  # the others were not even begun
    told = at_work.value("select count(*) from events where type = 'credential.limited'")
    assert told == 1


def test_without_a_key_and_an_address_the_job_waits_for_one(at_work: AtWork):
    at_work.configure(ANTHROPIC_BASE_URL=None)
    with proxy():  # it has no key either
        job = at_work.build("write a.txt: 1")
    assert (job.state, job.error_class) == ("parked", "authentication_failed")
    assert_fit_for_people(job)


def test_a_server_that_refuses_connections_is_tried_again(at_work: AtWork):
    at_work.begin("write a.txt: 1")
    before = at_work.head()
    at_work.model.stop()
    job = at_work.build("write b.txt: 2")
    assert (job.state, job.error_class, job.attempts) == ("queued", "unreachable", 1)
    assert at_work.head() == before
    assert_fit_for_people(job)
    at_work.model.start()
    assert at_work.again(job.id).state == "done"
    assert at_work.model.requests[-1].prompts == ("write a.txt: 1", "write b.txt: 2")


def test_a_request_that_times_out_is_tried_again(at_work: AtWork, configure: Configure):
    configure(API_TIMEOUT_MS="300")
    at_work.model.fault("hang", times=-1)
    job = at_work.build("write a.txt: 1")
    assert (job.state, job.error_class) == ("queued", "unreachable")


@pytest.mark.parametrize(
    ("more", "prompt", "error_class"),
    [
        ({"max_turns": 1}, "write a.txt: 1\nrun: true", "max_turns"),
        ({"budget": "0.0001"}, "write a.txt: 1\nrun: true", "budget_exhausted"),
    ],
)
def test_a_limit_of_the_request_fails_it_and_keeps_the_head(
    at_work: AtWork, more: dict[str, Any], prompt: str, error_class: str
):
    at_work.begin("write z.txt: 0")
    before = at_work.head()
    job = at_work.build(prompt, **more)
    assert (job.state, job.error_class) == ("failed", error_class)
    assert at_work.head() == before
    assert_fit_for_people(job)
    assert at_work.turns(job.id)[0]["cost_usd"] > 0


def test_a_missing_cli_lets_the_job_wait_for_another_worker(at_work: AtWork):
    at_work.configure(BATON_CLI_PATH="/nowhere/claude")
    job = at_work.build("write a.txt: 1")
    assert (job.state, job.error_class, job.attempts) == ("queued", "cli_missing", 0)
    assert job.run_at > datetime.now(UTC)
    assert "BATON_CLI_PATH" in (job.error or "")


@pytest.fixture
def cli(at_work: AtWork, tmp_path: Path) -> Path:
    """A program in the CLI's place; what is written to it is what it does."""
    path = tmp_path / "workspaces-tools" / "claude"
    path.parent.mkdir()
    at_work.configure(BATON_CLI_PATH=str(path), BATON_SANDBOX="off")
    return path


def does(cli: Path, script: str) -> None:
    cli.write_text(f"#!{sys.executable}\nimport os, signal, sys\n{script}\n")
    cli.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "state", "error_class"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "queued", "killed"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "queued", "killed"),
        ("print('unknown option --x', file=sys.stderr); sys.exit(1)", "failed", "start_failed"),
        (
            "print('Error: Session ID x is already in use.', file=sys.stderr); sys.exit(1)",
            "queued",
            "id_in_use",
        ),
        (  # as the keeper says it, on a filesystem where root may not give files away
            "print('keeper: cannot give /w to uid 9: no', file=sys.stderr); sys.exit(126)",
            "queued",
            "box_refused",
        ),
        ("sys.stdout.write('x' * 2_200_000 + chr(10))", "failed", "message_too_large"),
    ],
)
def test_a_cli_that_ends_badly(
    at_work: AtWork, cli: Path, script: str, state: str, error_class: str
):
    at_work.configure(BATON_MAX_MESSAGE_BYTES=str(2**21))
    does(cli, script)
    job = at_work.build("write a.txt: 1")
    assert (job.state, job.error_class) == (state, error_class)
    assert at_work.head() is None
    assert_fit_for_people(job)


def test_a_session_that_the_cli_ends_on_is_left_for_a_fresh_one(at_work: AtWork, cli: Path):
    """It ends while it loads the session, with a trace on stderr and no field that says why."""
    real = Path(claude_agent_sdk.__file__).with_name("_bundled") / "claude"
    does(
        cli,
        "if any(word.startswith('--resume') for word in sys.argv):\n"
        "    print('TypeError: x is not a function', file=sys.stderr); sys.exit(1)\n"
        f"os.execv('{real}', ['claude', *sys.argv[1:]])",
    )
    at_work.begin("write a.txt: 1")
    head = at_work.head()
    job = at_work.build("write b.txt: 2")
    assert (job.state, job.attempts) == ("done", 1)
    assert at_work.moves()[-1][:3] == ("fallback", "start_failed", head)
    assert "write a.txt: 1" in at_work.model.requests[-1].history


def test_a_cli_that_ends_in_mid_turn_is_started_again(at_work: AtWork, cli: Path):
    at_work.configure(BATON_IDLE_TIMEOUT="30")
    does(
        cli,
        "import json\n"
        "asked = json.loads(sys.stdin.readline())['request_id']\n"
        "answer = {'subtype': 'success', 'request_id': asked, 'response': {}}\n"
        "print(json.dumps({'type': 'control_response', 'response': answer}))\n"
        "print(json.dumps({'type': 'system', 'subtype': 'init', 'session_id': 'x'}), flush=True)\n"
        "sys.stdin.readline()\n"
        "print('out of luck', file=sys.stderr); sys.exit(1)",
    )
    job = at_work.build("write a.txt: 1")
    assert (job.state, job.error_class) == ("queued", "crashed")
    assert_fit_for_people(job)


def test_what_the_cli_says_of_a_start_it_refuses_is_no_fault_of_the_session(
    at_work: AtWork, cli: Path
):
    real = Path(claude_agent_sdk.__file__).with_name("_bundled") / "claude"
    does(cli, f"os.environ['https_proxy'] = 'no address'; os.execv('{real}', sys.argv)")
    at_work.begin("write a.txt: 1")
    head = at_work.head()
    job = at_work.build("write b.txt: 2")
    assert (job.state, job.error_class) == ("failed", "start_refused")
    assert_fit_for_people(job)
    assert (
        at_work.value("select max(resume_failure_count) from project_ai_session_metrics") == 0
    )
    at_work.configure(BATON_CLI_PATH=None)
    assert at_work.build("write b.txt: 2").state == "done"
    assert at_work.moves()[-1][4] == head


def test_an_agent_that_never_answers_is_started_again(at_work: AtWork):
    """The SDK gives it a minute, and has no class for what it raises then."""

    def silent(request: Any, *, watch: Any, **_: Any) -> Any:
        with _translated(Report(), watch, request):
            raise Exception("Control request timeout: initialize")  # noqa: TRY002

    job = at_work.build("write a.txt: 1", agent=silent)
    assert (job.state, job.error_class) == ("queued", "unanswered")
    assert_fit_for_people(job)


def test_a_postgres_that_was_away_costs_no_attempt_however_often(at_work: AtWork):
    def cut_off(*_: Any, **__: Any) -> Any:
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    job = at_work.build("write a.txt: 1", agent=cut_off)
    for _ in range(settings().attempts):
        job = at_work.again(job.id, agent=cut_off)
    assert (job.state, job.attempts, job.error_class) == ("queued", 0, "postgres_unreachable")
    assert_fit_for_people(job)
    assert at_work.again(job.id).state == "done"


def test_a_workspace_that_goes_away_is_tried_once_more(at_work: AtWork):
    def removing(request: Any, **more: Any) -> Any:
        from worker.agent.claude import claude

        request.cwd.rename(request.cwd.with_name("gone"))
        try:
            return claude(request, **more)
        finally:
            import shutil

            shutil.rmtree(request.cwd.with_name("gone"))

    at_work.configure(BATON_SANDBOX="off")
    job = at_work.build("write a.txt: 1", agent=removing)
    assert (job.state, job.error_class) == ("queued", "workspace_missing")
    job = at_work.again(job.id, agent=removing)
    assert (job.state, job.error_class) == ("failed", "workspace_missing")


def test_a_session_that_the_cli_does_not_find_is_not_tried_again(at_work: AtWork):
    """The store has it, the CLI does not: no message of a conversation is among its entries."""
    at_work.begin("write a.txt: 1")
    head = at_work.head()

    def forgetful(request: Any, *, store: Any, watch: Any) -> Any:
        from worker.agent.claude import claude

        if request.resume:
            store._parent = (request.resume, [{"type": "mode", "sessionId": request.resume}])
        return claude(request, store=store, watch=watch)

    job = at_work.build("write b.txt: 2", agent=forgetful)
    assert job.state == "done"
    assert at_work.tries(job.id) == [
        (head, "failed", "session_unknown"),
        (head, "rejected", "session_unknown"),
        (None, "fresh", "session_unknown"),
    ]
    assert at_work.moves()[-1][:2] == ("fallback", "session_unknown")
    assert at_work.model.requests[-1].prompts == ("write b.txt: 2",)


def test_an_agent_that_hangs_is_ended(at_work: AtWork):
    at_work.configure(BATON_IDLE_TIMEOUT="1.5")
    at_work.model.fault("hang", times=-1)
    job = at_work.build("write a.txt: 1")
    assert (job.state, job.error_class) == ("queued", "idle_timeout")
    assert_fit_for_people(job)


def test_a_turn_that_takes_too_long_is_ended(at_work: AtWork):
    at_work.configure(BATON_TURN_TIMEOUT="1.5")
    job = at_work.build("write a.txt: 1\nrun: sleep 30")
    assert (job.state, job.error_class) == ("queued", "turn_timeout")
    (turn,) = at_work.turns(job.id)
    assert turn["cost_estimated"]
    assert P
