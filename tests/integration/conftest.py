"""Jobs that run in the test's own process (tests/running.py)."""

from tests.running import at_work as at_work
