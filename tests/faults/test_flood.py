"""A hundred thousand jobs of one user, and another who asks for one."""

from uuid import UUID

import pytest
from psycopg import Connection

from tests.faults.conftest import Tally
from tests.ledger import ask
from tests.slots import Slots, flood


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "projects",
    [pytest.param(1, marks=pytest.mark.long), pytest.param(50_000, marks=pytest.mark.long)],
    ids=["one lane", "many lanes"],
)
def test_another_users_job_is_next_over_a_flood_looked_at_or_not(
    conn: Connection, tally: Tally, projects: int
):
    tally.fault = f"200 000 jobs of one user ({projects} lanes), half of them not looked at"
    tally.simulated = "worker"
    slots = Slots(conn)
    flood(conn, 100_000, projects)
    slots.fill()
    flood(conn, 100_000, projects)
    theirs = ask(conn, project="theirs", user_id="bob")
    if slots.running:
        slots.end()
    conn.execute("select * from baton_look(500, '2 s')")
    tally.ran()
    assert published_now(conn, 1) == [theirs]


def published_now(conn: Connection, room: int) -> list[UUID]:
    """What is published after no more than one look."""
    rows = conn.execute("select id from baton_publish(%s, 0, '2 s', '5 min')", (room,))
    return [job for (job,) in rows]
