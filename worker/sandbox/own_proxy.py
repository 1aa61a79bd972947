"""A worker whose host has no egress proxy runs one, for as long as it lives itself.

`egress` of the Procfile is one proxy for all workers of a host. Where nobody starts it (a worker
by hand, a fleet from before) agents would have no way to their model. One that comes later takes
the name over, and this one has nothing to do any more.
"""

import subprocess
import sys
import threading
import time

import structlog

from config import egress
from worker.workspace.git import bound

LOOK_EVERY = 2.0  # seconds; the first time, for one that is started together with the worker

log = structlog.get_logger()


def keep() -> None:
    """See to it from now on that a proxy answers here."""
    threading.Thread(target=_keep, name="egress", daemon=True).start()


def _keep() -> None:
    while True:
        time.sleep(LOOK_EVERY)
        if not egress.listens():
            log.info("egress.begun", home=str(egress.home()))
            _run()


def _run() -> None:
    """One proxy, to its end. The kernel ends it with this thread, which lives as long as we do."""
    try:
        code = subprocess.run(
            [*bound(), sys.executable, "-m", "egress"], check=False
        ).returncode
    except OSError as exc:
        log.warning("egress.not_begun", error=str(exc))
    else:
        log.warning("egress.ended", code=code)
