"""Autobahn's fuzzing client against what a gateway stands on, and against a gateway.

It needs Python 2.7, so it has an environment of its own (docs/decisions/0036-others-suites.md):

    WSTEST=…/bin/wstest make faults TESTS=tests/contracts/test_autobahn.py
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateways import gateway, tab, talk
from tests.machine import LACKS

WSTEST = os.environ.get("WSTEST") or shutil.which("wstest")
SLOW = ["9.*", "12.*", "13.*"]  # megabytes, and thousands of messages, each way
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not WSTEST, reason=f"{LACKS}Autobahn's wstest (WSTEST)"),
]


def fuzz(root: Path, url: str) -> dict[str, dict[str, str]]:
    """What came of each case."""
    spec: dict[str, object] = {
        "outdir": str(root / "reports"),
        "servers": [{"agent": "gateway", "url": url}],
        "cases": ["*"],
        "exclude-cases": SLOW,
        "exclude-agent-cases": {},
    }
    (root / "spec.json").write_text(json.dumps(spec))
    assert WSTEST
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [WSTEST, "-m", "fuzzingclient", "-s", str(root / "spec.json")],
        check=True, capture_output=True, env=env, timeout=3000,
    )  # fmt: skip
    told = json.loads((root / "reports" / "index.json").read_text())["gateway"]
    assert len(told) == 247
    return told


def test_what_a_gateway_stands_on_fails_no_case(dsn: str, redis_url: str, tmp_path: Path):
    log = tmp_path / "log"
    with gateway(dsn, redis_url, log, module="tests.contracts.echoing", ECHO="yes") as at:
        told = fuzz(tmp_path, at.url.replace("http", "ws"))
    failed = {name: one for name, one in told.items() if one["behavior"] not in GOOD}
    assert not failed
    assert "Traceback" not in log.read_text()


def test_a_gateway_is_not_shaken_by_any_case(dsn: str, redis_url: str, tmp_path: Path):
    """It echoes nothing: what is no hello is answered by 4400, so the cases' own verdicts say nothing."""
    log = tmp_path / "log"
    with gateway(dsn, redis_url, log, module="tests.contracts.echoing") as at:
        told = fuzz(tmp_path, at.url.replace("http", "ws") + "/v1/live")

        async def story() -> None:
            async with await tab(at, "shop") as one:
                assert (await one.next("live"))["head"] == 0

        talk(story)
    assert 4400 in {one["remoteCloseCode"] for one in told.values()}
    assert "Traceback" not in log.read_text()
