"""Settings that cannot be are refused at every door, in one sentence, before anything is done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(sys.executable).parent
DOORS = [
    "celery -A worker.app worker",
    "python -m celery -A worker.app beat",
    "celery -A worker.app flower",
    "python -m worker.relay",
    "baton jobs",
    "baton up",
]
BROKEN = {"BATON_LEASE": "5", "BATON_RENEW_EVERY": "10", "BATON_SLOT": "3"}
UNKNOWN = "BATON_SLOT is not a setting and does nothing: did you mean BATON_SLOTS?"


def _enter(door: str, **env: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = door.split()
    return subprocess.run(
        [HERE / program, *arguments],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("door", DOORS)
def test_a_start_with_settings_that_break_each_other_is_refused(door: str):
    done = _enter(door, **BROKEN)
    assert done.returncode == 1
    assert done.stdout == ""
    unknown, refused = done.stderr.splitlines()
    assert unknown == UNKNOWN
    assert refused.startswith("BATON_RENEW_EVERY (10) and BATON_CANCEL_POLL (0.5) together")


@pytest.mark.parametrize("door", DOORS[2:4])
def test_a_process_without_its_servers_is_refused(door: str):
    done = _enter(door, DATABASE_URL="postgresql://localhost/x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "REDIS_URL is not set: start `baton up`, or name the server.\n"


def test_help_is_given_whatever_the_settings_are():
    done = _enter("baton jobs --help", **BROKEN)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_producer_is_refused_when_it_starts_and_only_for_what_it_uses():
    door = "python -c __import__('worker.client')"
    assert _enter(door, **BROKEN, BATON_SLOTS="none").returncode == 0
    done = _enter(door, DATABASE_URL="mysql://me:secret@host/shop")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "config.settings.BadSettings: DATABASE_URL is not usable: it must be"
        " postgresql://user:password@host:port/name."
    )
    assert "secret" not in done.stderr
