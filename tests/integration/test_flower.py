"""Flower's door: it does not start without a password, and `baton up` has one of its own."""

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dev.stack.flower import door
from dev.stack.procfile import read_procfile
from tests.commandline import NOWHERE, Baton
from tests.commandline import bare as bare
from worker.broker.flower import closed


@pytest.mark.parametrize("given", [None, "ann:secret,bob:"])
def test_it_does_not_start_without_a_password(tmp_path: Path, given: str | None):
    env = {
        **os.environ,
        "DATABASE_URL": NOWHERE,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "PORT": "0",
    }
    env |= {"FLOWER_UNAUTHENTICATED_API": "true", "FLOWER_ADDRESS": "0.0.0.0"}
    if given is not None:
        env["FLOWER_BASIC_AUTH"] = given
    command = ["sh", "-c", f"exec {read_procfile(tmp_path)['flower']}"]
    done = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "set FLOWER_BASIC_AUTH=user:password" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_password_is_made_once_for_its_owner_only(tmp_path: Path):
    first = door(tmp_path, 5555, {})
    kept = tmp_path / ".baton" / "flower" / "password"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert first.env == {"FLOWER_BASIC_AUTH": f"baton:{kept.read_text()}"}
    assert door(tmp_path, 5555, {}) == first
    kept.unlink()
    assert door(tmp_path, 5555, {}) != first


@pytest.mark.parametrize("name", ["FLOWER_BASIC_AUTH", "FLOWER_AUTH"])
def test_one_that_is_given_goes_before_and_is_not_told(tmp_path: Path, name: str):
    found = door(tmp_path, 5555, {name: "ann:secret"})
    assert found.url == "http://127.0.0.1:5555"
    assert not (tmp_path / ".baton" / "flower").exists()


class Open(BaseHTTPRequestHandler):
    """A Flower as it is left alone."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def opened() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Open) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_doctor_says_that_one_lets_anybody_in_and_that_one_is_away(opened: str):
    assert closed(opened)[0] == "fail"
    state, told = closed("http://ann:secret@127.0.0.1:1")
    assert (state, "secret" in told) == ("warn", False)


def test_its_address_is_among_those_in_effect(bare: Baton):
    url = "http://baton:secret@127.0.0.1:5555"
    assert f"BATON_FLOWER_URL={url}" in bare("env", BATON_FLOWER_URL=url).out.splitlines()
    assert "BATON_FLOWER_URL" not in bare("env", BATON_FLOWER_URL="").out
    assert bare("env", BATON_FLOWER_URL="elsewhere").code == 1
