"""A pool child that somebody stops, and does not let go on: its job and its slot are not lost."""

import os
import signal
import time
from pathlib import Path

import pytest

from dev.stack.processes import alive, look
from tests.acceptance.outside import LONG, baton_up
from tests.faults.conftest import Tally
from tests.faults.strikes import RELAY, WORKERS
from tests.invariants import violations
from tests.waiting import wait_until
from worker.client import ChatPlan

pytestmark = pytest.mark.long


def test_a_stopped_childs_slot_is_free_again(tmp_path: Path, tally: Tally):
    tally.fault = "SIGSTOP of the only pool child, for good"
    with baton_up(
        tmp_path,
        commands={"worker": WORKERS, "relay": RELAY},
        BATON_SLOTS="1",
        BATON_LEASE="6",
        BATON_RENEW_EVERY="0.5",
    ) as baton:
        asked = baton.ask(ChatPlan(project="p", user="ann", prompt="sleep 2\nsay done"))
        wait_until(lambda: baton.seen("p"), timeout=LONG, description="the model to be asked")
        child = look(baton.job(asked)["pid"])
        assert child
        os.kill(child.pid, signal.SIGSTOP)
        struck = time.monotonic()
        done = baton.until(asked, "done")
        tally.recovered(time.monotonic() - struck)
        tally.ran()
        assert done["attempts"] == 1
        assert not alive(child)
        tally.check(violations(baton.conn, ended=True, stored=True))
