"""Which tests run in one process, one after the other: those that share a stack, a gateway or a
ledger full of rows.

It is then started once, and ends with them. (xdist's own groups have no effect with pytest
9.2: it sets `_nodeid`, which that no longer reads.)
"""

import pytest
from xdist.remote import Producer  # pyright: ignore[reportMissingTypeStubs]
from xdist.scheduler import LoadScopeScheduling  # pyright: ignore[reportMissingTypeStubs]

# The tests of a folder or file, by the beginning of their path; the longest that fits counts.
TOGETHER = {
    "tests/acceptance/": "acceptance",
    "tests/acceptance/test_doors.py": "doors",
    "tests/acceptance/test_hosts.py": "two hosts",
    "tests/acceptance/test_install.py": "installed",
    "tests/acceptance/test_supervision.py": "supervision",
    "tests/acceptance/test_switches.py": "another product",
    "tests/contracts/test_vocabulary.py": "the CLI's program",
    "tests/faults/test_crash_points.py": "storms",
    "tests/faults/test_deploy.py": "deploys",
    "tests/faults/test_hosts.py": "hosts",
    "tests/faults/test_kills.py": "storms",  # what is measured needs a core
    "tests/faults/test_postgres.py": "postgres",
    "tests/faults/test_voice.py": "faults of voice",
    "tests/faults/transport/": "transport",
    "tests/integration/test_calls.py": "calls",
    "tests/integration/test_gateway_bad_clients.py": "bad clients",
    "tests/integration/test_gateway_http.py": "a gateway over HTTP",
    "tests/integration/test_gateway_live.py": "a live gateway",
    "tests/integration/test_plans.py": "a month's work",
    "tests/integration/test_plans_flood.py": "a flood",
    "tests/integration/test_python_client.py": "the client",
    "tests/integration/test_services.py": "services",
    "tests/integration/test_voice_credit.py": "credit of voice",
    "tests/integration/test_voice_flows.py": "voice",
    "tests/integration/test_voice_links.py": "links of voice",
    "tests/integration/test_voice_rows.py": "rows of voice",
    "tests/live/test_voice": "voice in a browser",
}
ALONE = "tests/acceptance/test_up.py"


class Sharing(LoadScopeScheduling):
    """Any other test goes to whichever process is free."""

    def _split_scope(self, nodeid: str) -> str:
        fits = [start for start in TOGETHER if nodeid.startswith(start)]
        if not fits or nodeid.startswith(ALONE):
            return nodeid
        return TOGETHER[max(fits, key=len)]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Sharing:
    return Sharing(config, log)
