"""How much of Postgres, git and Redis a chain takes: counted, so that it holds on any machine.

The agent does nothing (dev/agents/scripted.py); docs/performance.md has the figures.
"""

from collections.abc import Iterator

import pytest

from db.core import pool
from dev.agents.scripted import scripted
from tests.counting import Counted, counting
from tests.faults.wire import Wire, wired
from tests.running import AtWork, P, U
from worker.client import Build, Update

ANSWER = '{"summary": "none", "recommendations": []}'


@pytest.fixture
def wire(at_work: AtWork, dsn: str) -> Iterator[Wire]:
    """Between this process and Postgres, once the process has begun all it begins once."""
    at_work.agent = scripted(says=ANSWER)
    with wired(dsn) as found:
        at_work.configure(DATABASE_URL=found.url, BATON_COMPACT="never", BATON_CANCEL_POLL="5")
        pool.close()
        at_work.chain(Build(project="other", user=U, prompt="go"))
        yield found
        pool.close()


def test_a_chain_of_three_jobs_takes_few_statements_and_processes(
    at_work: AtWork, wire: Wire, redis_url: str
):
    first = at_work.ask(Build(project=P, user=U, prompt="go"))
    with counting(wire, redis_url) as counted:
        assert [job.state for job in at_work.chain_of(first)] == ["done"] * 3
    _holds(counted, gits=3)

    then = at_work.ask(Update(project=P, user=U, prompt="go on"))
    with counting(wire, redis_url) as counted:
        at_work.chain_of(then)
    _holds(counted, gits=0)


def _holds(counted: Counted, *, gits: int) -> None:
    told = "\n".join([*(each[:200] for each in counted.asked), *map(str, counted.commands)])
    assert counted.statements <= 25, told
    assert counted.waits <= 30, told
    assert counted.redis_trips <= 24, told
    assert counted.gits == len(counted.commands) <= gits, told
