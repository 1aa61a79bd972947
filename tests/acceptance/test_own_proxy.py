"""A worker whose host has no egress proxy: it runs one, and takes it along when it ends."""

from pathlib import Path

import psutil

from tests.acceptance.outside import baton_up
from tests.waiting import wait_until

COMMANDS = {
    "egress": "sleep 600",
    "worker": "celery -A worker.app worker --loglevel INFO",
    "relay": "python -m worker.relay",
}


def test_a_worker_without_a_proxy_runs_one_for_as_long_as_it_lives(tmp_path: Path):
    with baton_up(tmp_path, commands=COMMANDS) as baton:
        project = baton.project()
        assert baton.chat(project, "say hello")["state"] == "done"
        worker = psutil.Process(baton.up.pid("worker"))
        (own,) = [
            each
            for each in worker.children(recursive=True)
            if each.cmdline()[-1:] == ["egress"]
        ]
        worker.kill()
        wait_until(lambda: not own.is_running(), description="the proxy to end with its worker")
        assert baton.chat(project, "say hello again")["state"] == "done"
