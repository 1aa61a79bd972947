"""Whatever the agent's CLI writes is a sign of life: only one that is silent is ended."""

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.test_error_table import cli, does
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from worker.client import Build
from worker.live import progress

__all__ = ["cli"]

SPEAKS = """
import json, time
def say(**told):
    print(json.dumps(told), flush=True)
asked = json.loads(sys.stdin.readline())
say(type="control_response", response={"subtype": "success", "request_id": asked["request_id"],
                                       "response": {}})
sys.stdin.readline()
end = time.monotonic() + 11
while time.monotonic() < end:
    LINE
    time.sleep(0.2)
say(type="result", subtype="success", is_error=False, duration_ms=1, duration_api_ms=1, num_turns=1,
    session_id="x", result="done", terminal_reason="completed")
"""


@pytest.mark.long
def test_an_answer_that_streams_for_longer_than_the_limit_is_awaited(at_work: AtWork):
    at_work.configure(BATON_IDLE_TIMEOUT="6")
    at_work.model.fault("slow", pace=0.2)
    job = at_work.chat("say " + "word " * 100)
    assert (job.state, job.error) == ("done", None)
    took = at_work.value("select extract(epoch from ended_at - started_at) from turns")
    assert took > 6, "the answer was to last longer than the limit"


def test_a_text_is_told_as_it_is_written_and_then_whole(at_work: AtWork):
    words = " ".join(f"word{n}" for n in range(30))
    at_work.model.fault("slow", pace=0.05)
    job_id = at_work.ask(Build(project=P, user=U, prompt=f"say {words}"))
    seen, chain = dict[str, dict[str, Any]](), at_work.job(job_id).chain_id
    running = threading.Thread(target=at_work.run, args=(job_id,))
    running.start()
    while running.is_alive():
        seen |= dict(progress.follow(chain))
    told = [body for body in seen.values() if body["what"] in ("writing", "text")]
    *pieces, whole = told
    assert {piece["what"] for piece in pieces} == {"writing"}
    assert len(pieces) > 3
    so_far = ""
    for piece in pieces:
        assert piece["from"] == len(so_far)
        so_far += piece["text"]
    assert (whole["what"], whole["text"]) == ("text", words)
    assert words.startswith(so_far)
    left = [body["what"] for _, body in progress.follow(chain)]
    assert (left.count("writing"), left.count("text")) == (0, 1)


@pytest.mark.parametrize(
    "kind", ["something_new", pytest.param("tool_progress", marks=pytest.mark.long)]
)
def test_messages_that_the_sdk_drops_are_signs_of_life(at_work: AtWork, cli: Path, kind: str):
    at_work.configure(BATON_IDLE_TIMEOUT="10")
    does(cli, SPEAKS.replace("LINE", f"say(type={kind!r})"))
    job = at_work.chat("say hello")
    assert job.error_class == "capture_incomplete", "it told its end, and wrote nothing down"


def test_a_cli_that_is_silent_is_ended(at_work: AtWork, cli: Path):
    at_work.configure(BATON_IDLE_TIMEOUT="1")
    does(cli, SPEAKS.replace("LINE", "pass"))
    assert at_work.chat("say hello").error_class == "idle_timeout"


def test_for_how_long_a_running_agent_is_silent_is_told(at_work: AtWork):
    at_work.configure(BATON_RENEW_EVERY="0.2")
    at_work.model.fault("hang", times=-1)
    job_id = at_work.ask(Build(project=P, user=U, prompt="say hello"))

    def silent_for() -> float | None:
        return progress.silences([job_id]).get(job_id)

    assert silent_for() is None
    running = threading.Thread(target=at_work.run, args=(job_id,))
    running.start()
    try:
        wait_until(lambda: (silent_for() or 0) > 1, description="a silence")
        told = silent_for() or 0
        wait_until(lambda: (silent_for() or 0) > told, description="a longer one")
    finally:
        at_work.conn.execute(
            "update jobs set cancel_requested_at = now() where id = %s", (job_id,)
        )
        running.join()
    assert at_work.job(job_id).state == "cancelled"
    assert silent_for() is None
