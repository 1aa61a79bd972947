"""Asking over HTTP: whose key it is is looked at in the statement that asks, and told before all else."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from psycopg import Connection

from db.live import keys
from gateway.http import forms
from tests.gateways import Gateway, gateway
from tests.gateways import at as at
from tests.gateways import ledger as ledger
from tests.gateways import url as url

RIGHT = {"kind": "build", "user": "ann", "prompt": "go"}
WRONG: list[dict[str, Any]] = [
    {"kind": "dance"},
    {"prompt": "nul \x00"},
    {"prompt": ""},
    {"colour": "red"},
    {"workspace": "/nowhere"},
    {"project": "a/b"},
]
SEVERAL = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]


@pytest.fixture
def project() -> str:
    return f"shop-{uuid4().hex[:8]}"


def _answers(at: Gateway, given: str | None, project: str) -> list[tuple[int, str]]:
    """What whoever comes with that key is told of requests that nobody may make."""
    with httpx.Client(base_url=at.url, trust_env=False) as http:
        if given is not None:
            http.headers["Authorization"] = f"Bearer {given}"
        right = RIGHT | {"project": project}
        told = [http.post("/v1/jobs", json=right | wrong) for wrong in WRONG]
        told += [http.post("/v1/jobs", json=right, headers=SEVERAL)]
        told += [http.post("/v1/jobs", json=[])]
    return [(one.status_code, one.json()["code"]) for one in told]


@pytest.mark.parametrize("here", [False, True], ids=["elsewhere", "with workspaces"])
def test_who_may_not_ask_is_told_that_before_what_is_wrong_with_the_request(
    url: str, ledger: Connection, tmp_path: Path, project: str, here: bool
):
    voice, _ = keys.create(ledger, "acme", "", ["voice"])
    ended, row = keys.create(ledger, "acme", "", ["jobs"])
    ledger.execute("update api_keys set expires_at = now() where id = %s", (row.id,))
    places = {"BATON_WORKSPACES": str(tmp_path / "workspaces")} if here else {}
    with gateway(url, "", tmp_path / "log", **places) as at:
        for given, refused in (
            (None, (401, "unauthenticated")),
            ("bk_nothing", (401, "unauthenticated")),
            (ended, (401, "key_expired")),
            (voice, (403, "forbidden")),
        ):
            assert set(_answers(at, given, project)) == {refused}
        allowed = _answers(at, at.key, project)
    assert {status for status, _ in allowed} == {422}
    assert (422, "bad_workspace") in allowed
    assert ledger.execute("select from jobs where project_id = %s", (project,)).rowcount == 0


def test_the_use_of_a_key_is_noted_once_a_minute(at: Gateway, ledger: Connection, project: str):
    used = "select last_used_at from api_keys where key_hash = %s"
    late = "update api_keys set last_used_at = now() - interval '61 s' where key_hash = %s"
    holder = (keys.digest(at.key),)
    seen = list[Any]()
    for n in range(4):
        if n == 2:
            ledger.execute(late, holder)
        at.ask(f"{project}-{n}")
        seen.append(ledger.execute(used, holder).fetchone())
    assert seen[0] == seen[1] != (None,)
    assert seen[1] < seen[2] == seen[3]


def test_the_document_has_the_request_as_if_it_were_a_parameter(at: Gateway):
    plain = FastAPI()

    @plain.post("/v1/jobs")
    async def ask(asked: forms.Ask) -> None:  # pyright: ignore[reportUnusedFunction]
        pass

    with at.http as http:
        told = http.get("/v1/openapi.json").json()
    wanted = plain.openapi()
    bodies = [one["paths"]["/v1/jobs"]["post"]["requestBody"] for one in (told, wanted)]
    assert bodies[0] == bodies[1]
    texts = [json.dumps(one["components"]["schemas"]["Ask"]) for one in (told, wanted)]
    assert texts[0] == texts[1]
    names = list(told["components"]["schemas"])
    assert names == sorted(names)
