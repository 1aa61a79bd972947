"""Producers over HTTP: the same rules as at every other door, and nothing told of others."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from psycopg import Connection

from db.core.events import Event, append
from db.jobs import outbox
from db.live import keys
from tests.gateways import Gateway
from tests.gateways import at as at
from tests.gateways import ledger as ledger
from tests.gateways import url as url
from tests.ledger import advance, claim, finish, turn
from worker import client
from worker.client import Build

PROJECT = "/v1/projects/{project}"
ENDED = (
    r"This key ended at \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ: make another with `baton key create`\."
)


@pytest.fixture
def project() -> str:
    return f"shop-{uuid4().hex[:8]}"


def of_build(project: str) -> dict[str, Any]:
    return {"project": project, "user": "ann", "prompt": "go"}


def body(project: str, **more: object) -> dict[str, object]:
    return {"kind": "build", **of_build(project), **more}


def test_a_request_that_is_sent_again_is_the_same_job_and_another_body_is_refused(
    at: Gateway, project: str
):
    with at.http as http:
        key = {"Idempotency-Key": "order-17"}
        first = http.post("/v1/jobs", json=body(project), headers=key)
        again = http.post("/v1/jobs", json=body(project), headers=key)
        other = http.post("/v1/jobs", json=body(project, prompt="other"), headers=key)
    assert (first.status_code, first.json()["state"]) == (202, "queued")
    assert again.json() == first.json()
    assert (other.status_code, other.json()["code"]) == (409, "key_conflict")


@pytest.mark.parametrize(
    ("wrong", "status", "code"),
    [
        ({"kind": "dance"}, 422, "bad_input"),
        ({"prompt": ""}, 422, "bad_input"),
        ({"prompt": "x" * 200_001}, 422, "prompt_too_long"),
        ({"user": "not a user"}, 422, "bad_input"),
        ({"project": "a/b"}, 422, "bad_input"),
        ({"prompt": "nul \x00"}, 422, "bad_input"),
        ({"run_at": "2030-01-01T00:00:00"}, 422, "bad_input"),
        ({"colour": "red"}, 422, "bad_input"),
        ({"kind": "update", "project": "nobodys"}, 404, "unknown_project"),
        ({"priority": 10**9}, 422, "bad_input"),
        ({"priority": 10**400}, 422, "bad_input"),
        ({"budget": "NaN"}, 422, "bad_input"),
        ({"budget": "1e400"}, 422, "bad_input"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence_and_a_code(
    at: Gateway,
    project: str,
    ledger: Connection,
    wrong: dict[str, object],
    status: int,
    code: str,
):
    count = "select count(*) from jobs"
    before = ledger.execute(count).fetchone()
    with at.http as http:
        answer = http.post("/v1/jobs", json=body(project) | wrong)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"].endswith(".")
    assert ledger.execute(count).fetchone() == before


def test_what_is_anothers_looks_as_if_it_were_not_there(
    at: Gateway, project: str, ledger: Connection
):
    job = at.ask(project)
    other, _ = keys.create(ledger, "rival", "", ["jobs"])
    places = [
        *(f"/v1/jobs/{job}", f"/v1/projects/{project}", f"/v1/projects/{project}/chat"),
        *(f"/v1/projects/{project}/jobs", f"/v1/projects/{project}/events"),
    ]
    with httpx.Client(
        base_url=at.url, headers={"Authorization": f"Bearer {other}"}, trust_env=False
    ) as http:
        for place in places:
            answer, unknown = (
                http.get(place),
                http.get(place.replace(project, "x").replace(job, str(uuid4()))),
            )
            assert (answer.status_code, answer.text) == (404, unknown.text)
        for act in ("cancel", "retry", "answer"):
            given = {"choice": "retry"} if act == "answer" else None
            assert http.post(f"/v1/jobs/{job}/{act}", json=given).status_code == 404
        assert http.post("/v1/jobs", json=body(project)).status_code == 404
        asked = {"project": project, "user": "ann"}
        assert http.post("/v1/tickets", json=asked).status_code == 404
    assert ledger.execute(
        "select count(*), min(state) from jobs where project_id = %s", (project,)
    ).fetchone() == (1, "queued")


def test_a_key_counts_until_its_end_and_then_is_refused_at_every_door(
    at: Gateway, project: str, ledger: Connection
):
    key, row = keys.create(ledger, "acme", "", ["jobs", "voice"], timedelta(hours=1))
    assert row.expires_at == row.created_at + timedelta(hours=1)
    asked = {"project": project, "user": "ann"}
    doors = {"/v1/jobs": body(project), "/v1/tickets": asked, "/v1/calls": {}}
    with httpx.Client(
        base_url=at.url, trust_env=False, headers={"Authorization": f"Bearer {key}"}
    ) as http:
        assert [http.post(door, json=doors[door]).status_code for door in doors] == [
            202,
            200,
            201,
        ]
        ended = "update api_keys set expires_at = now(), last_used_at = null where id = %s"
        ledger.execute(ended, (row.id,))
        for door in doors:
            answer = http.post(door, json=doors[door])
            assert (answer.status_code, answer.json()["code"]) == (401, "key_expired"), door
            assert re.fullmatch(ENDED, answer.json()["detail"])
        assert http.get(f"/v1/projects/{project}").status_code == 401
    (shown,) = (each for each in keys.known(ledger, "acme") if each.id == row.id)
    assert shown.expired
    assert shown.last_used_at is None, "it was not used"


def test_a_key_that_was_revoked_or_never_was_counts_for_nothing(
    at: Gateway, project: str, ledger: Connection
):
    key, row = keys.create(ledger, "acme", "", ["jobs"])
    voice, _ = keys.create(ledger, "acme", "", ["voice"])
    keys.revoke(ledger, row.id)
    with httpx.Client(base_url=at.url, trust_env=False) as http:
        for given, status in (
            *((f"Bearer {key}", 401), ("Bearer nothing", 401), ("Basic abc", 401)),
            (f"Bearer {voice}", 403),
        ):
            answer = http.post("/v1/jobs", json=body(project), headers={"Authorization": given})
            assert answer.status_code == status, given
        assert http.post("/v1/jobs", json=body(project)).status_code == 401
    kept = ledger.execute("select string_agg(key_hash, ' ') from api_keys").fetchone()
    assert kept
    assert key not in kept[0], "the key itself is kept nowhere"


def test_a_job_is_waited_for_and_told_with_its_session_and_cost(
    at: Gateway, project: str, ledger: Connection
):
    asked = at.ask(project)
    with at.http as http:
        waits = http.get(f"/v1/jobs/{asked}", params={"wait": 0.3}).json()
        assert (waits["state"], waits["ended"]) == ("queued", False)
        assert waits["waits"]["code"] == "no_worker"
        assert "start one" in waits["waits"]["sentence"]
        outbox.look(ledger)
        job = claim(ledger, UUID(asked))
        assert job
        assert http.get(f"/v1/jobs/{asked}").json()["waits"] is None
        minted = turn(ledger, job)
        advance(ledger, job, minted, raw_cost_usd=0.25, result={"text": "made"}, input_tokens=7)
        told = http.get(f"/v1/jobs/{asked}", params={"wait": 20}).json()
    assert (told["state"], told["result"], told["session"]) == (
        "done",
        {"text": "made"},
        minted,
    )
    assert (float(told["cost_usd"]), told["tokens"]["input"]) == (0.25, 7)


def test_lists_come_in_pages_and_a_cursor_is_of_its_own_list(
    at: Gateway, project: str, ledger: Connection
):
    ids = [at.ask(project, f"go {n}") for n in range(5)]
    with at.http as http:
        seen, cursor = list[str](), None
        while True:
            page = http.get(
                f"/v1/projects/{project}/jobs",
                params={"limit": 2} | ({"cursor": cursor} if cursor else {}),
            ).json()
            seen += [item["id"] for item in page["items"]]
            if (cursor := page["cursor"]) is None:
                break
            wrong = http.get(f"/v1/projects/{project}/chain", params={"cursor": cursor})
            assert (wrong.status_code, wrong.json()["code"]) == (422, "bad_cursor")
    assert seen == ids
    assert ledger.execute("select 1").fetchone()


@pytest.mark.parametrize(
    "meanwhile",
    [
        "delete from jobs where id = %s",
        "update jobs set state = 'done', finished_at = now() where id = %s",
    ],
    ids=["removed", "ended"],
)
def test_a_page_goes_on_where_the_last_job_stood_whatever_became_of_it(
    at: Gateway, project: str, ledger: Connection, meanwhile: str
):
    ids = [at.ask(project, f"go {n}") for n in range(5)]
    end = "update jobs set state = 'done', finished_at = now() where id = %s"
    for asked in ids[:2]:
        ledger.execute(end, (asked,))
    seen, cursor = list[str](), ""
    with at.http as http:
        for _ in ids * 2:
            params = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
            page = http.get(f"/v1/projects/{project}/jobs", params=params).json()
            seen += [item["id"] for item in page["items"]]
            if (cursor := page["cursor"]) is None:
                break
            ledger.execute(meanwhile.encode(), (seen[-1],))
    assert seen[:3] == ids[2:]
    assert set(seen) == set(ids)
    assert cursor is None, "it ends"


def test_cancel_retry_and_answer_do_what_the_command_line_does(
    at: Gateway, project: str, ledger: Connection
):
    asked = at.ask(project)
    with at.http as http:
        assert http.post(f"/v1/jobs/{asked}/retry").status_code == 409
        assert (
            http.post(f"/v1/jobs/{asked}/answer", json={"choice": "retry"}).status_code == 409
        )
        assert http.post(f"/v1/jobs/{asked}/cancel").json()["state"] == "cancelled"
        assert http.post(f"/v1/jobs/{asked}/cancel").json()["state"] == "cancelled"
        http.headers["Idempotency-Key"] = "k"
        again = http.post(f"/v1/jobs/{asked}/retry")
        assert (again.status_code, again.json()["state"]) == (202, "queued")
        assert http.post(f"/v1/jobs/{asked}/retry").json() == again.json()
        other = http.post(f"/v1/jobs/{asked}/retry", json={"fresh": True})
        assert (other.status_code, other.json()["code"]) == (409, "key_conflict")
        job = claim(ledger, UUID(again.json()["id"]))
        assert job
        finish(ledger, job, "failed")
        late = http.post(f"/v1/jobs/{job.id}/cancel")
        assert (late.status_code, late.json()["code"]) == (409, "ended")


def test_events_are_read_from_an_offset_and_waited_for(
    at: Gateway, project: str, ledger: Connection
):
    at.ask(project)
    outbox.look(ledger)
    with at.http as http:
        place = f"/v1/projects/{project}/events"
        first = http.get(place, params={"offset": "-1"})
        assert [event["type"] for event in first.json()] == ["job.queued", "chat.said"]
        assert first.headers["stream-up-to-date"] == "true"
        end = first.headers["stream-next-offset"]
        assert http.get(place, params={"offset": end}).json() == []
        assert http.head(place).headers["stream-next-offset"] == end
        assert http.get(place, params={"offset": "a,b"}).status_code == 400
        assert http.get(place, params={"live": "long-poll"}).status_code == 400
        with http.stream("GET", place, params={"offset": end, "live": "sse"}) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: control"
            at.ask(project, "more")
            outbox.look(ledger)
            data = next(line for line in lines if line.startswith("data: ["))
            assert "more" in data


def test_events_are_told_as_the_protocol_has_it(at: Gateway, project: str, ledger: Connection):
    """What its conformance suite asks of reading: 304, headers, the form of control events."""
    at.ask(project)
    outbox.look(ledger)
    place = f"/v1/projects/{project}/events"
    with at.http as http:
        first = http.get(place)
        known = {"If-None-Match": f'"other", {first.headers["etag"]}'}
        same = http.get(place, headers=known)
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["stream-next-offset"] == first.headers["stream-next-offset"]
        append(ledger, project, [Event("noise", None, {})])
        assert http.get(place, headers=known).status_code == 200
        assert http.get(place, params={"offset": ["-1", "now"]}).status_code == 400
        assert http.get(place, params={"offset": "9".rjust(20, "0")}).status_code == 410
        for answer in (first, http.head(place), http.get("/v1/projects/none/events")):
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert first.headers["cross-origin-resource-policy"] == "same-origin"
        with http.stream("GET", place, params={"offset": "now", "live": "sse"}) as stream:
            assert stream.headers["content-type"] == "text/event-stream"
            assert stream.headers["x-content-type-options"] == "nosniff"
            lines = stream.iter_lines()
            assert next(lines) == "event: control"
            assert next(lines).startswith("data:{")


def test_an_event_source_that_connects_again_goes_on_where_it_was(
    at: Gateway, project: str, ledger: Connection
):
    """A browser's EventSource asks the same address again, with the `id` that it had last."""
    at.ask(project)
    outbox.look(ledger)
    append(ledger, project, [Event("noise", None, {"n": n}) for n in range(3)])
    place = f"/v1/projects/{project}/events"

    def read(offset: str, known: str | None) -> tuple[list[int], str]:
        """The numbers that come first, and the last id."""
        headers = {"Last-Event-ID": known} if known is not None else {}
        asked = {"offset": offset, "live": "sse"}
        numbers, told = list[int](), ""
        with (
            at.http as http,
            http.stream("GET", place, params=asked, headers=headers) as stream,
        ):
            assert stream.status_code == 200
            for line in stream.iter_lines():
                if line.startswith("data: ["):
                    numbers = [event["seq"] for event in json.loads(line[6:])]
                told = line.removeprefix("id: ") if line.startswith("id: ") else told
                if "upToDate" in line:
                    break
        return numbers, told

    first, known = read("-1", None)
    assert known == str(first[-1]).rjust(20, "0")
    append(ledger, project, [Event("noise", None, {})])
    assert read("-1", known)[0] == [first[-1] + 1]
    assert read("now", known)[0] == [first[-1] + 1]
    with at.http as http:
        asked = {"offset": "-1", "live": "sse"}
        for wrong, status in (("x", 400), ("9" * 20, 410)):
            answer = http.get(place, params=asked, headers={"Last-Event-ID": wrong})
            assert answer.status_code == status
        assert len(http.get(place, headers={"Last-Event-ID": known}).json()) == first[-1] + 1


def test_a_page_changes_its_ticket_for_a_cookie_until_it_signs_out(at: Gateway, project: str):
    job = at.ask(project)
    with httpx.Client(base_url=at.url, trust_env=False) as page:
        assert page.get(f"/v1/projects/{project}").status_code == 401
        ticket = at.ticket(project)
        assert page.post("/v1/session", json={"ticket": ticket + "x"}).status_code == 401
        begun = page.post("/v1/session", json={"ticket": ticket})
        assert begun.json()["user"] == "ann"
        until = datetime.fromisoformat(begun.json()["expires_at"])
        assert until > datetime.now(UTC) + timedelta(hours=11), (
            "the cookie's end, not the ticket's"
        )
        set_cookie = begun.headers["set-cookie"].lower()
        assert "httponly" in set_cookie
        assert "samesite=strict" in set_cookie
        assert page.get(f"/v1/projects/{project}").status_code == 200
        assert page.get(f"/v1/jobs/{job}").status_code == 200
        assert page.get("/v1/projects/another").status_code == 401
        evil = {"Origin": "https://evil.example"}
        refused = page.post(f"/v1/jobs/{job}/cancel", headers=evil)
        assert (refused.status_code, refused.json()["code"]) == (403, "bad_origin")
        kept = dict(page.cookies)
        assert page.delete("/v1/session").status_code == 204
        page.cookies.update(kept)
        assert page.get(f"/v1/projects/{project}").status_code == 401, "a replay"
        assert page.post("/v1/session", json={"ticket": ticket}).status_code == 401


def test_it_is_ready_while_postgres_answers_and_describes_itself(at: Gateway):
    with at.http as http:
        assert http.get("/readyz").json()["status"] == "ok"
        paths = http.get("/v1/openapi.json").json()["paths"]
        unknown = http.get("/v1/nothing")
        described = http.get("/v1/openapi.json").json()
    assert {"/v1/jobs", "/v1/jobs/{job}/cancel", f"{PROJECT}/events"} <= set(paths)
    ((name, scheme),) = described["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert described["security"] == [{name: []}]
    assert (
        paths["/healthz"]["get"]["security"] == paths["/v1/session"]["post"]["security"] == []
    )
    assert unknown.json() == {"code": "not_found", "detail": "Not Found."}


def test_a_browser_with_cookies_of_several_projects_says_which_one_a_job_is_of(
    at: Gateway, project: str
):
    second = f"{project}-2"
    jobs = {name: at.ask(name) for name in (project, second)}
    with httpx.Client(base_url=at.url, trust_env=False) as page:
        for name in jobs:
            page.post("/v1/session", json={"ticket": at.ticket(name)})
        for name, job in jobs.items():
            told = page.get(f"/v1/jobs/{job}", params={"project": name})
            assert (told.status_code, told.json()["project"]) == (200, name)
            cancelled = page.post(f"/v1/jobs/{job}/cancel", params={"project": name})
            assert cancelled.json()["state"] == "cancelled"
        other = page.get(f"/v1/jobs/{jobs[project]}", params={"project": second})
        assert other.status_code == 404


def test_a_ticket_for_a_project_that_another_user_began_opens_nothing_of_it(
    at: Gateway, project: str
):
    ticket = at.ticket(project, "bob")  # nobody has begun it yet
    with httpx.Client(base_url=at.url, trust_env=False) as page:
        page.post("/v1/session", json={"ticket": ticket})
        assert page.get(f"/v1/projects/{project}/events").json() == []
        at.ask(project)  # ann's
        for place in ("", "/events", "/chat", "/chain", "/jobs", "/versions/v1/diff"):
            answer = page.get(f"/v1/projects/{project}{place}")
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_project")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"project": "a/b"}, "project"),
        ({"project": "nul \x00"}, "project"),
        ({"project": "\ud800"}, "project"),
        ({"user": "\ud800"}, "user"),
        ({"user": "not a user"}, "user"),
        ({"user": "_template"}, "user"),
    ],
)
def test_nobody_gets_a_ticket_for_what_could_never_begin(
    at: Gateway, project: str, wrong: dict[str, str], field: str | None
):
    with at.http as http:
        asked = json.dumps({"project": project, "user": "ann"} | wrong)
        headers = {"Content-Type": "application/json"}
        answer = http.post("/v1/tickets", content=asked, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_input")
    assert answer.json().get("field") == field


def test_what_can_be_got_can_be_asked_about_and_is_not_sent_twice(at: Gateway, project: str):
    of = f"/v1/projects/{project}"
    of_job = f"/v1/jobs/{at.ask(project)}"
    with at.http as http:
        for place in (
            *("/healthz", "/readyz", "/app/shop", "/static/baton-live.js", "/v1/openapi.json"),
            *(of_job, of, f"{of}/chain", f"{of}/chat", f"{of}/jobs", f"{of}/events"),
        ):
            answer = http.head(place)
            assert (answer.status_code, answer.content) == (200, b""), place
        assert http.head(f"{of}/versions/none/diff").status_code == 404
        assert set(http.get("/v1/openapi.json").json()["paths"][f"{PROJECT}/events"]) == {"get"}
        known = http.get("/static/baton-live.js").headers["etag"]
        again = http.get("/static/baton-live.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        other = http.get("/static/baton-live.js", headers={"If-None-Match": '"other"'})
        assert other.status_code == 200


def test_who_uses_a_method_that_a_place_has_not_is_told_which_it_has(at: Gateway, project: str):
    with at.http as http:
        for place, has in (
            ("/v1/jobs", {"POST"}),
            (f"/v1/jobs/{uuid4()}", {"GET", "HEAD"}),
            (f"/v1/projects/{project}/events", {"GET", "HEAD"}),
            ("/v1/session", {"POST", "DELETE"}),
            ("/healthz", {"GET", "HEAD"}),
        ):
            answer = http.put(place)
            assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
            assert set(answer.headers["allow"].split(", ")) == has, place


@pytest.mark.parametrize("name", ["nope", "%00", "%ff", "1"])
def test_an_id_that_could_be_no_jobs_is_one_that_is_not_there(at: Gateway, name: str):
    with at.http as http:
        for answer in (http.get(f"/v1/jobs/{name}"), http.post(f"/v1/jobs/{name}/cancel")):
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")


def test_a_websocket_that_is_asked_for_over_http_says_what_it_is(at: Gateway):
    with at.http as http:
        for place in ("/v1/live", "/v1/realtime", "/v1/calls/x/frontend", "/v1/calls/x/media"):
            answer = http.get(place)
            assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required"), (
                place
            )
            assert answer.headers["upgrade"] == "websocket"


@pytest.mark.parametrize(
    ("sent", "kind", "said"),
    [
        (b'{"kind": "build"}', "text/plain", "Content-Type: application/json"),
        (
            b'{"kind": "build"}',
            "application/x-www-form-urlencoded",
            "Content-Type: application/json",
        ),
        (b'{"kind": "build"}', "", "Content-Type: application/json"),
        (b"", "application/json", "a JSON object"),
        (b"[]", "application/json", "a JSON object"),
        (b"null", "application/json", "a JSON object"),
        (b'"x"', "application/json", "a JSON object"),
    ],
)
def test_a_body_that_is_no_object_is_refused_with_what_it_is_to_be(
    at: Gateway, sent: bytes, kind: str, said: str
):
    with at.http as http:
        answer = http.post("/v1/jobs", content=sent, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_input")
    assert said in answer.json()["detail"]
    assert "field" not in answer.json()


def test_a_field_that_is_none_is_named_and_not_sent_back_whole(at: Gateway, project: str):
    with at.http as http:
        answer = http.post("/v1/jobs", json=body(project, **{"x" * 100_000: 1}))
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_input")
    assert len(answer.content) < 500


@pytest.mark.parametrize(
    "name", ["priority", "max_turns", "check_tries", "race", "race_seconds"]
)
def test_true_is_no_number(at: Gateway, project: str, name: str):
    with at.http as http:
        answer = http.post("/v1/jobs", json=body(project, **{name: True}))
    assert (answer.status_code, answer.json().get("field")) == (422, name)


def test_a_key_is_the_same_text_at_every_door(at: Gateway, project: str, ledger: Connection):
    key = "заказ-17"
    with at.http as http:
        headers = [(b"Idempotency-Key", key.encode())]
        job = http.post("/v1/jobs", json=body(project), headers=headers).json()["id"]
        latin = http.post(
            "/v1/jobs", json=body(project), headers=[(b"Idempotency-Key", b"caf\xe9")]
        )
        two = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        several = http.post("/v1/jobs", json=body(project), headers=two)
    assert str(client.enqueue(ledger, Build(**of_build(project), key=key)).id) == job
    assert latin.status_code == 202
    known = ledger.execute(
        "select key from jobs where id = %s", (latin.json()["id"],)
    ).fetchone()
    assert known == ("café",)
    assert (several.status_code, several.json()["field"]) == (422, "key")


@pytest.mark.parametrize("key", ["x" * 10_000, "x" * 201, ""])
def test_a_key_that_is_none_is_refused_in_a_sentence(at: Gateway, project: str, key: str):
    with at.http as http:
        answer = http.post("/v1/jobs", json=body(project), headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_input")
    assert answer.json()["detail"].endswith(".")


def test_too_many_requests_of_a_user_are_told_when_to_ask_again(
    at: Gateway, project: str, ledger: Connection
):
    ledger.execute(
        "insert into baton_settings (name, value) values ('user_rate', '2')"
        " on conflict (name) do update set value = '2'"
    )
    try:
        with at.http as http:
            asked = [http.post("/v1/jobs", json=body(project, user="bob")) for _ in range(3)]
    finally:
        ledger.execute("update baton_settings set value = '0' where name = 'user_rate'")
    last = asked[-1]
    assert [answer.status_code for answer in asked] == [202, 202, 429]
    assert last.json()["code"] == "too_many_requests"
    assert 0 < last.json()["retry_after"] <= 60
    assert int(last.headers["retry-after"]) >= last.json()["retry_after"]


def test_a_body_that_no_request_is_as_long_as_is_not_read(at: Gateway, project: str):
    with at.http as http:
        answer = http.post("/v1/jobs", json=body(project, prompt="x" * 1_400_000))
    assert (answer.status_code, answer.json()["code"]) == (413, "prompt_too_long")


@pytest.mark.parametrize("place", ["/v1/jobs", "/v1/session", "/v1/tickets", "/v1/calls"])
def test_a_body_is_read_no_further_than_a_request_is_long_whoever_sends_it(
    at: Gateway, place: str
):
    def pieces() -> Iterator[bytes]:
        yield b"{"
        for _ in range(14):
            yield b" " * 100_000
        yield b"}"

    with httpx.Client(base_url=at.url, trust_env=False) as nobody:
        for content in (pieces(), b" " * 1_400_000):
            answer = nobody.post(
                place, content=content, headers={"Content-Type": "application/json"}
            )
            assert (answer.status_code, answer.json()["code"]) == (413, "prompt_too_long")
            assert answer.json()["detail"].endswith(".")
