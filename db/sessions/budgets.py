"""What a job, its project, its user and the whole fleet may spend, and have spent.

A job's budget is for all of its turns; the others are for a day, which begins at 00:00 UTC. Each is
in USD, in turns, or both. A turn that runs counts with what the egress proxy has counted so far, one
that has ended with what it cost, by the CLI or by the proxy, whichever is more: so what was spent
above a budget is in the books, and the next turn is not begun.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row

TODAY: LiteralString = "t.started_at >= date_trunc('day', now(), 'UTC')"
SCOPES: dict[LiteralString, LiteralString] = {
    "job": "where t.job_id = %(job)s",
    "project": "where t.project_id = %(project)s and " + TODAY,
    "user": "join jobs j on j.id = t.job_id where j.user_id = %(user)s and " + TODAY,
    "day": "where " + TODAY,
}


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent; None: no limit."""

    usd: Decimal | None = None
    turns: int | None = None

    def __bool__(self) -> bool:
        return self.usd is not None or self.turns is not None


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent in one of SCOPES."""

    scope: str
    usd: Decimal
    turns: int


def spent(
    conn: Connection,
    scopes: Mapping[str, Budget] | tuple[str, ...],
    *,
    job: UUID | None = None,
    project: str | None = None,
    user: str | None = None,
) -> list[Spent]:
    """What was spent in each of these scopes, in one statement."""
    asked: LiteralString = " union all ".join(
        "select '"
        + scope
        + "' as scope, coalesce(sum(greatest(t.cost_usd, t.spent_usd)), 0) as usd,"
        " count(*) as turns from turns t " + SCOPES[scope]
        for scope in SCOPES  # in this order, whatever was asked
        if scope in scopes
    )
    if not asked:
        return []
    with conn.cursor(row_factory=class_row(Spent)) as cur:
        given = {"job": job, "project": project, "user": user}
        return cur.execute(asked, given).fetchall()
