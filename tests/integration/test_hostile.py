"""The developer kit's hostile agent (`dev/standin/scenarios/hostile.yaml`) gets nowhere.

The real CLI does what a model tells it that wants out: one turn tries, the next shows what the
first has left for it. The jobs end as any others. Each hole by itself: test_holes.py and the
tests that it names.
"""

import json
from pathlib import Path

import psutil
import pytest

from tests.machine import needs_bubblewrap
from tests.running import AtWork

KEY = "sk-the-real-one"
FAR = Path("/etc/baton-was-here"), Path("/usr/baton-was-here")
# What a worker's own rights allow, where there is no box (docs/security.md, what is left open).
OPEN_WITHOUT_A_BOX = {
    *("write_outside", "read_shadow", "other_workspaces", "worker_environment", "mount"),
    *("new_users", "kernel", "capabilities", "docker", "metadata", "nameserver", "names"),
}


def tries(at_work: AtWork) -> tuple[set[str], set[str]]:
    """What got out, and what was held."""
    *lines, last = (at_work.place / "tries.txt").read_text().splitlines()
    assert last == "ended"
    told = [line.split() for line in lines]
    out, held = ({name for how, name in told if how == which} for which in ("OUT", "held"))
    return out, held


def commands() -> list[str]:
    """The command lines of all processes of this host, those in boxes too."""
    return [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]


@pytest.mark.parametrize(
    "box",
    [
        pytest.param(True, marks=needs_bubblewrap),
        pytest.param(False, marks=pytest.mark.long),
    ],
)
def test_an_agent_that_wants_out_gets_nowhere_and_its_job_ends_as_any_other(
    at_work: AtWork, box: bool
):
    at_work.model.use("hostile")
    at_work.configure(ANTHROPIC_API_KEY=KEY, **({} if box else {"BATON_SANDBOX": "off"}))
    first = at_work.build("break out")
    assert (first.state, first.error) == ("done", None)
    assert not [each for each in commands() if str(at_work.place / "outlived") in each]
    out, held = tries(at_work)
    assert (out - (set() if box else OPEN_WITHOUT_A_BOX), len(out | held)) == (set(), 17)

    # Its own tools, and what it left for our git and for the next turn.
    second = at_work.build("look")
    assert (second.state, second.error) == ("done", None)
    assert not any(place.exists() for place in FAR)
    ran = [path.read_text() for path in at_work.place.rglob("ran")]
    assert ran == []
    seen = json.dumps([each.body for each in at_work.model.requests])
    assert "root:x:0" not in seen
    assert KEY not in seen

    # Told as events, each host once; what no version can hold is named.
    refused = {(each["host"], each["why"]) for each in at_work.events("egress.refused")}
    assert refused == {
        ("evil.example:443", "not_listed"),
        ("127.0.0.1:5432", "not_listed"),
        ("[::ffff:a9fe:a9fe]:80", "not_listed"),
        ("2130706433:80", "not_a_host"),
    }
    assert {"name": "pipe", "why": "pipe"} in at_work.events("workspace.left_out")[0]["names"]
