"""The stand-in on the wire: streams, counts, errors in the API's shape, faults on cue."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev.standin.api import LARGEST
from dev.standin.faults import BadFault
from dev.standin.messages import JSON
from dev.standin.server import Standin, standin
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
KEY = {"x-api-key": "stand-in"}
STATUS_ERRORS = [
    (
        "too_long",
        400,
        "invalid_request_error",
        "prompt is too long: 200001 tokens > 200000 maximum",
    ),
    ("400", 400, "invalid_request_error", "not valid"),
    ("credit", 400, "invalid_request_error", "credit balance is too low"),
    ("401", 401, "authentication_error", "invalid x-api-key"),
    ("403", 403, "permission_error", "permission"),
    ("404", 404, "not_found_error", "model: claude-opus-5-5"),
    ("413", 413, "request_too_large", "maximum size"),
    ("429", 429, "rate_limit_error", "rate limit"),
    ("500", 500, "api_error", "Internal"),
    ("529", 529, "overloaded_error", "Overloaded"),
]


@pytest.fixture
def model() -> Iterator[Standin]:
    with standin(scenario="plain") as running:
        yield running


def body(prompt: str = "say hello", *, stream: bool = False, **more: Any) -> JSON:
    return {
        "model": "claude-opus-5-5",
        "max_tokens": 100,
        "stream": stream,
        "messages": [{"role": "user", "content": prompt}],
        **more,
    }


def post(model: Standin, what: JSON, *, path: str = "/v1/messages") -> httpx.Response:
    return httpx.post(model.url + path, headers=KEY, json=what, timeout=5)


def events(response: httpx.Response) -> list[JSON]:
    parts = response.text.strip().split("\n\n")
    return [json.loads(p.split("\ndata: ")[1]) for p in parts]


def test_a_message_and_its_stream_say_the_same(model: Standin):
    whole = post(model, body()).json()
    stream = events(post(model, body(stream=True)))
    deltas = [e["delta"]["text"] for e in stream if e["type"] == "content_block_delta"]

    assert whole["content"] == [{"type": "text", "text": "hello"}]
    assert "".join(deltas) == "hello"
    assert stream[0]["message"]["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
    assert stream[-2]["delta"]["stop_reason"] == whole["stop_reason"] == "end_turn"
    assert [e["type"] for e in stream if e["type"] != "content_block_delta"] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_a_tool_call_streams_its_input_as_json(model: Standin):
    tool = {"name": "Bash", "input_schema": {"type": "object"}}
    stream = events(post(model, body("run: ls", stream=True, tools=[tool])))
    deltas = [e["delta"]["partial_json"] for e in stream if e["type"] == "content_block_delta"]

    assert json.loads("".join(deltas))["command"] == "ls"
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"


def test_tokens_are_counted_as_they_are_charged(model: Standin):
    counted = post(model, body(), path="/v1/messages/count_tokens").json()["input_tokens"]

    assert counted == post(model, body()).json()["usage"]["input_tokens"]


def test_the_models_are_listed(model: Standin):
    listed = httpx.get(f"{model.url}/v1/models", headers=KEY).json()["data"]

    assert httpx.get(f"{model.url}/v1/models/{listed[0]['id']}").json() == listed[0]
    assert httpx.head(model.url).status_code == 200


def test_a_request_that_the_api_would_refuse_is_refused(model: Standin):
    refusals = [
        httpx.post(f"{model.url}/v1/messages", json=body()),
        httpx.post(f"{model.url}/v1/messages", headers=KEY, content=b"{"),
        post(model, {"model": "m", "max_tokens": 1}),
        post(model, {"model": "m", "messages": ["hello"]}),
        httpx.get(f"{model.url}/v1/nothing", headers=KEY),
    ]
    kinds = [r.json()["error"]["type"] for r in refusals]

    assert [r.status_code for r in refusals] == [401, 400, 400, 400, 404]
    assert kinds == ["authentication_error", *["invalid_request_error"] * 3, "not_found_error"]
    assert model.unknown == ("GET /v1/nothing",)


def test_a_request_of_more_than_32_megabytes_is_too_large(model: Standin):
    refused = httpx.post(f"{model.url}/v1/messages", headers=KEY, content=bytes(LARGEST + 1))

    assert (refused.status_code, refused.json()["error"]["type"]) == (413, "request_too_large")


@pytest.mark.parametrize(("kind", "status", "error", "words"), STATUS_ERRORS)
def test_an_error_on_cue_has_the_apis_shape(
    model: Standin, kind: str, status: int, error: str, words: str
):
    model.fault(kind)
    failed = post(model, body())
    told = failed.json()

    assert (failed.status_code, told["type"], told["error"]["type"]) == (status, "error", error)
    assert words in told["error"]["message"]
    assert failed.headers["request-id"] == told["request_id"] == model.requests[-1].id
    assert model.requests[-1].fault == kind
    assert post(model, body()).status_code == 200


def test_a_rate_limit_says_when_to_come_back_or_that_one_should_not(model: Standin):
    model.fault(429, retry_after=7)
    model.fault(429, retry=False)

    assert post(model, body()).headers["retry-after"] == "7"
    final = post(model, body()).headers
    assert final["x-should-retry"] == "false"
    assert "retry-after" not in final


def test_a_request_above_the_context_window_is_too_long():
    with standin(scenario="plain", limit=50) as small:
        refused = post(small, body("many words " * 50)).json()["error"]["message"]

    assert refused.startswith("prompt is too long: 1")
    assert refused.endswith("tokens > 50 maximum")


def test_a_fault_meets_only_the_requests_it_is_meant_for(model: Standin):
    model.fault("529", times=-1, when="blue", model="opus", after=1)
    asked = ["say red", "say blue", "say blue", "say blue"]
    seen = [post(model, body(p)).status_code for p in asked]
    other = post(model, body("say blue") | {"model": "claude-haiku-4-5"})

    assert seen == [200, 200, 529, 529]
    assert other.status_code == 200
    model.clear_faults()
    assert post(model, body("say blue")).status_code == 200


def test_an_answer_that_never_comes_never_comes(model: Standin):
    model.fault("hang")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{model.url}/v1/messages", headers=KEY, json=body(), timeout=0.3)


def test_a_reset_connection_gives_no_answer(model: Standin):
    model.fault("reset")
    with pytest.raises(httpx.ReadError, match=r"[Rr]eset"):
        post(model, body())


def test_a_cut_stream_ends_in_the_middle_of_an_event(model: Standin):
    model.fault("cut")
    got: list[bytes] = []

    def receive() -> None:
        asked = body(stream=True)
        with httpx.stream("POST", f"{model.url}/v1/messages", headers=KEY, json=asked) as cut:
            got.extend(cut.iter_bytes())

    with pytest.raises(httpx.TransportError):
        receive()
    assert not b"".join(got).endswith(b"\n")


def test_an_error_event_ends_the_stream(model: Standin):
    model.fault("error_event")
    stream = events(post(model, body(stream=True)))

    assert stream[0]["type"] == "message_start"
    assert stream[-1]["error"]["type"] == "overloaded_error"


def test_an_unfinished_stream_ends_in_order_and_without_an_end(model: Standin):
    model.fault("unfinished")
    stream = events(post(model, body(stream=True)))

    assert [e["type"] for e in stream[-2:]] == ["content_block_start", "content_block_delta"]


def test_work_that_was_cut_off_is_charged_for_and_refused_work_is_not(model: Standin):
    model.fault("unfinished")
    model.fault("529")
    post(model, body(stream=True))
    post(model, body(stream=True))
    cut, refused = model.requests

    assert (cut.fault, cut.usage is None) == ("unfinished", False)
    assert (refused.fault, refused.usage) == ("529", None)


def test_garbage_is_no_message(model: Standin):
    model.fault("garbage")
    got = post(model, body())

    assert got.status_code == 200
    with pytest.raises(ValueError, match="Expecting value"):
        got.json()


def test_a_slow_answer_is_whole_and_slow(model: Standin):
    model.fault("slow", pace=0.05)
    begun = time.monotonic()
    stream = events(post(model, body("say " + "word " * 12, stream=True)))
    deltas = [e for e in stream if e["type"] == "content_block_delta"]

    assert len(deltas) == 5
    assert time.monotonic() - begun >= 5 * 0.05


def test_a_stopped_server_refuses_and_a_started_one_answers_on_the_same_port(model: Standin):
    model.stop()
    with pytest.raises(httpx.ConnectError):
        post(model, body())
    model.start()
    assert post(model, body()).status_code == 200


def test_a_port_in_use_is_refused(model: Standin):
    with pytest.raises(OSError, match="in use"):
        standin(port=model.port).start()


def test_the_pauses_of_a_scenario_follow_the_speed(tmp_path: Path):
    told = tmp_path / "slow.yaml"
    told.write_text("rules: [{steps: [{think: 4}, {say: a}]}]")

    def seconds(speed: float) -> float:
        with standin(scenario=told, speed=speed) as running:
            begun = time.monotonic()
            post(running, body(stream=True))
            return time.monotonic() - begun

    assert seconds(0) < 4
    assert 0.2 <= seconds(20) < 4


def test_an_unknown_fault_is_refused_with_the_known_ones(model: Standin):
    with pytest.raises(BadFault, match="529, hang, reset"):
        model.fault("earthquake")
    with pytest.raises(BadFault, match="has no often"):
        model.fault("529", often=2)


def test_another_process_controls_it_over_http(model: Standin):
    faults, scenario = f"{model.url}/_standin/faults", f"{model.url}/_standin/scenario"

    assert httpx.post(faults, json={"kind": "529", "times": -1}).json()[0]["kind"] == "529"
    assert post(model, body()).status_code == 529
    assert httpx.delete(faults).json() == []
    assert httpx.post(faults, json={"kind": "no"}).status_code == 400
    assert (
        httpx.post(scenario, json={"yaml": "rules: [{steps: [{say: new}]}]"}).status_code == 200
    )
    assert post(model, body("x")).json()["content"][0]["text"] == "new"
    assert (
        httpx.post(scenario, json={"yaml": "rules: 1"}).json()["error"].startswith("Scenario")
    )
    log = httpx.get(f"{model.url}/_standin/requests", params={"since": 1}).json()
    assert [(r["kind"], r["prompts"], r["fault"]) for r in log] == [("turn", ["x"], None)]


def test_the_log_holds_what_the_model_saw_but_not_the_key(model: Standin):
    post(model, body("say one", system="Be kind.", tools=[{"name": "Write"}]))
    (seen,) = model.requests

    assert (seen.prompts, seen.system, seen.tools) == (("say one",), "Be kind.", ("Write",))
    assert seen.usage is not None
    assert "stand-in" not in seen.key
    assert model.wait_for(lambda s: "say one" in s.prompts) == seen
    with pytest.raises(TimeoutError):
        model.wait_for(lambda s: s.kind == "compaction", timeout=0.01)


def test_it_serves_in_an_event_loop_too():
    async def ask() -> int:
        async with standin(scenario="plain") as running, httpx.AsyncClient() as client:
            answer = await client.post(f"{running.url}/v1/messages", headers=KEY, json=body())
            return answer.status_code

    assert asyncio.run(ask()) == 200


def test_the_program_says_where_it_listens_and_ends_on_a_signal(tmp_path: Path):
    ready = tmp_path / "ready"
    command = [
        sys.executable,
        "-m",
        "dev.standin",
        "--scenario",
        "plain",
        "--ready-file",
        str(ready),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        try:
            wait_until(ready.exists, description="the ready file")
            url = ready.read_text().strip()
            assert httpx.head(url).status_code == 200
        finally:
            program.terminate()
        assert program.stdout is not None
        assert program.stdout.read().strip() == url
    assert program.returncode == 0


def test_the_program_refuses_an_unknown_scenario_with_a_sentence():
    command = [sys.executable, "-m", "dev.standin", "--scenario", "none"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert (
        ended.stderr
        == "There is no scenario none: name one of demo, hostile, plain, or a .yaml file.\n"
    )
