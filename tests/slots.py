"""Simulated workers: what the relay publishes is claimed at once, and ends when the test says so."""

from dataclasses import dataclass, field
from typing import LiteralString
from uuid import UUID

from psycopg import Connection

from db.jobs import outbox
from tests.ledger import claim, published

FLOOD: LiteralString = """
    with new as (select gen_random_uuid() as id, n from generate_series(1, %(many)s) n)
    insert into jobs (id, chain_id, project_id, user_id, kind)
    select id, id, 'flood' || n %% %(projects)s, 'ann', 'build' from new order by n"""

DUE: LiteralString = """
    select from jobs
     where state in ('queued', 'parked') and not ready and not announced and publish_after <= now()
     limit 1"""


@dataclass
class Slots:
    """Workers with so many slots, simulated: what is published is claimed at once."""

    conn: Connection
    many: int = 2
    running: list[UUID] = field(default_factory=list[UUID])

    def fill(self, *, user_slots: int = 0) -> list[UUID]:
        """Let the relay look at all that came, and publish for what is free; returns what begins."""
        while self.conn.execute(DUE).rowcount:
            outbox.look(self.conn)
        begins = published(self.conn, self.many - len(self.running), user_slots=user_slots)
        for job in begins:
            assert claim(self.conn, job), f"{job} was published, and it is not first"
        self.running += begins
        return begins

    def end(self, nth: int = 0) -> None:
        """The n-th of the running jobs ends, and nothing follows."""
        self.conn.execute(
            "update jobs set state = 'done', finished_at = now(), lease_until = null where id = %s",
            (self.running.pop(nth),),
        )


def flood(conn: Connection, many: int, projects: int) -> None:
    """So many jobs of the user ann, in so many projects of hers."""
    conn.execute(
        "insert into projects (project_id, user_id)"
        " select 'flood' || n, 'ann' from generate_series(0, %s) n on conflict do nothing",
        (projects,),
    )
    conn.execute(FLOOD, {"many": many, "projects": projects})
