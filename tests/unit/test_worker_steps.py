"""What a worker does before it takes work."""

import os
import subprocess
import sys

STEPS = """
from worker.app import app
worker = app.WorkController(pool="solo")
print(*(type(step).__name__ for step in worker.consumer.steps))
"""


def test_a_worker_waits_for_no_other_worker():
    nowhere = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    done = subprocess.run(
        [sys.executable, "-c", STEPS],
        env=os.environ | nowhere, capture_output=True, text=True, check=True,
    )  # fmt: skip
    steps = done.stdout.split()
    assert "Tasks" in steps
    assert not {"Mingle", "Gossip"} & set(steps)
