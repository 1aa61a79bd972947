"""The page in Chromium against real gateways: killed, cut off and restarted under it.

Node has the browser and the gateways; this process does the jobs, with the agent that needs no
CLI. A prompt that says so finds its session gone (`forget everything`).
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from db.live import keys
from dev.stack.processes import free_port
from tests.live.node import (
    CHECKOUT,
    CHROMIUM,
    MODULES,
    needs_chromium,
    needs_node,
    needs_packages,
)
from tests.running import AtWork
from tests.running import at_work as at_work
from tests.waiting import wait_until

pytestmark = [needs_node, needs_packages, needs_chromium, pytest.mark.agent("direct")]

NEXT = """
    select id, project_id, args ->> 'prompt', args ->> 'answer' from jobs
     where state = 'queued' and run_at <= now()
     order by created_at"""
SESSIONS = "select session_id from project_ai_session_metrics where project_id = %s"
SAID_TWICE = """
    select 1 from events where type = 'chat.said' and body ->> 'role' = 'user'
     group by project_id, job_id having count(*) > 1"""


def test_a_first_message_is_answered(at_work: AtWork, tmp_path: Path):
    _run(at_work, tmp_path, "a first message is answered")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_told_twice_whatever_happens_to_the_gateway(
    at_work: AtWork, tmp_path: Path
):
    _run(at_work, tmp_path, ".")
    assert at_work.rows(SAID_TWICE) == []


def _run(at_work: AtWork, root: Path, names: str) -> None:
    key, _ = keys.create(at_work.conn, "acme", "tests", ["jobs"])
    ran: dict[str, Any] = {}

    def browse() -> None:
        ran["it"] = subprocess.run(
            [
                *("node", "--test", "--test-reporter=tap", f"--test-name-pattern={names}"),
                CHECKOUT / "tests" / "live" / "gateway.browser.mjs",
            ],
            cwd=root,
            env={
                **os.environ,
                "BATON_NODE_MODULES": str(MODULES),
                "CHROMIUM": CHROMIUM,
                "KEY": key,
                "GATEWAY": json.dumps([sys.executable, "-m", "gateway"]),
                "BATON_WEB_PORT": str(free_port()),
                "BATON_SECRET": "s" * 32,
            },
            capture_output=True,
            text=True,
            timeout=850,
            check=False,
        )

    browsing = threading.Thread(target=browse)
    browsing.start()
    wait_until(
        lambda: _work(at_work) or not browsing.is_alive(),
        timeout=850,
        description="the browser",
    )
    browsing.join()
    it = ran["it"]
    assert it.returncode == 0, it.stdout + it.stderr
    assert "# fail 0" in it.stdout
    assert "# pass 0" not in it.stdout


def _work(at_work: AtWork) -> bool:
    """Do what can be done now. Never true: there is always more to wait for."""
    for job, project, prompt, answer in at_work.rows(NEXT):
        if "forget everything" in (prompt or "") and not answer:
            for (session,) in at_work.rows(SESSIONS, project):
                at_work.lose(session)
        at_work.run(job)
    return False
