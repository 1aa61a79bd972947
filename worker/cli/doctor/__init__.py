"""`baton doctor`: one check after the other, each a line that says how it knows.

A check is `ok`, `warn` (look at it; work goes on) or `fail` (jobs will not run as they should):
what the ledger says (`ledger`), the model's endpoint (`model`), Redis and the web (`broker`), this
host (`host`).
"""

import platform
from collections.abc import Iterator

from config.release import version
from worker.cli.doctor.broker import redis_and_web
from worker.cli.doctor.check import Check
from worker.cli.doctor.host import this_host
from worker.cli.doctor.ledger import in_the_ledger


def examine() -> Iterator[Check]:
    """Every check, as it is made; a later one that needs an earlier one is left out with it."""
    yield Check("baton", "ok", f"{version()}, on Python {platform.python_version()}")
    yield from in_the_ledger()
    yield from redis_and_web()
    yield from this_host()
