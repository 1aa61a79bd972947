"""Workspaces made up at random, whose files no version can hold in part (tests/faults/nasty.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import Tally
from tests.machine import needs_setpriv, without_override

SHORT, LONG = 12, 400  # workspaces


@needs_setpriv
@pytest.mark.timeout(1800)
def test_whatever_lies_in_a_workspace_is_kept_or_named(
    tally: Tally, seed: int, long: bool, tmp_path: Path
):
    tally.fault = "files of every kind, name and mode, nested repositories, in any order"
    tally.simulated = "agent"
    times = LONG if long else SHORT
    ran = subprocess.run(
        [
            *without_override(),
            sys.executable,
            "-m",
            "tests.faults.nasty",
            str(times),
            str(seed),
        ],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    tally.ran(times)
    assert ran.returncode == 0, ran.stderr[-4000:]
