"""Tokens of turns: what an agent has in place of the model's key, as the egress proxy reads them.

A token holds while its turn runs and its attempt's lease does. So it ends with the commit, with
the failure, and with a worker that was killed: nobody has to take it back.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from db.core import events
from db.core.events import Event

LOOKED_AT = 1000  # events


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose turn a token is, what it may spend and has spent (USD; no budget: no limit), and for
    how many seconds it holds without being looked up again."""

    turn: int
    job_id: UUID
    project_id: str
    user_id: str
    kind: str
    chain: UUID
    budget_usd: float | None
    spent_usd: float
    seconds: float


def fresh() -> str:
    """A new token."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


async def holder(conn: AsyncConnection, token: str) -> Holder | None:
    """Whose the token is; None: nobody's, or not any more."""
    async with conn.cursor(row_factory=class_row(Holder)) as cur:
        await cur.execute(
            """
            select t.id as turn, j.id as job_id, j.project_id, j.user_id, j.kind,
                   j.chain_id as chain, t.budget_usd::float8 as budget_usd, coalesce(t.spent_usd, 0)::float8 as spent_usd,
                   extract(epoch from j.lease_until - now())::float8 as seconds
              from turns t join jobs j on j.id = t.job_id and j.attempt = t.attempt
             where t.token_hash = %s and t.outcome = 'running'
               and j.state = 'running' and j.lease_until > now()
            """,
            (digest(token),),
        )
        return await cur.fetchone()


async def spend(conn: AsyncConnection, turn: int, usd: float) -> None:
    """Count it against the turn's budget."""
    await conn.execute(
        "update turns set spent_usd = coalesce(spent_usd, 0) + %s where id = %s", (usd, turn)
    )


async def tell(conn: AsyncConnection, holder: Holder, kind: str, body: dict[str, Any]) -> None:
    """Write an event of the turn's job, unless a late one of the project's says the same."""
    about = {"kind": holder.kind, "chain": str(holder.chain), **body}
    told = await conn.execute(
        """
        select 1 from events e join projects p using (project_id)
         where p.project_id = %s and e.seq > p.event_seq - %s
           and e.job_id = %s and e.type = %s and e.body ->> 'host' = %s limit 1
        """,
        (holder.project_id, LOOKED_AT, holder.job_id, kind, body["host"]),
    )
    if await told.fetchone() is None:
        asked = events.as_param([Event(kind, holder.job_id, about)])
        await conn.execute(events.APPEND, {"project": holder.project_id, "events": asked})
