"""What a job, its project, its user, its account and the whole fleet may spend, and have spent.

A job's budget is for all of its turns; the others are for a day, which begins at 00:00 UTC. Each is
in USD, in turns, or both. A turn that runs counts with what the egress proxy has counted so far, one
that has ended with what it cost, by the CLI or by the proxy, whichever is more: so what was spent
above a budget is in the books. Workers look before each turn (worker/job/budgets.py), the proxy
before each request to the model (egress/turns.py).
"""

from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from typing import LiteralString
from uuid import UUID

from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row

from config.settings import settings

TODAY: LiteralString = "t.started_at >= date_trunc('day', now(), 'UTC')"
SCOPES: dict[LiteralString, LiteralString] = {
    "job": "where t.job_id = %(job)s",
    "project": "where t.project_id = %(project)s and " + TODAY,
    "user": "join jobs j on j.id = t.job_id where j.user_id = %(user)s and " + TODAY,
    # Whose the project is over HTTP; of one that is nobody's there is nothing to add up.
    "account": """join account_projects a using (project_id) where a.account_id = (
        select mine.account_id from account_projects mine where mine.project_id = %(project)s)
        and """
    + TODAY,
    "day": "where " + TODAY,
}
WHOSE = {
    "job": "this job",
    "project": "this project today",
    "user": "this user today",
    "account": "this account today",
    "day": "all projects today",
}
COUNTED = 7_239_185_014  # any number of our own: who counts turns before one more begins


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


@dataclass(frozen=True, slots=True)
class Payer:
    """Who pays for a turn."""

    job: UUID
    project: str
    user: str


def limits() -> dict[str, Budget]:
    """The budgets of the settings, by scope; those without a limit are left out."""
    here, found = settings(), dict[str, Budget]()
    for scope in SCOPES:
        usd: float | None = getattr(here, f"budget_{scope}_usd")
        turns: int | None = getattr(here, f"budget_{scope}_turns")
        if budget := Budget(None if usd is None else Decimal(str(usd)), turns):
            found[scope] = budget
    return found


def spent(conn: Connection, scopes: Iterable[str], payer: Payer | None = None) -> list[Spent]:
    """What was spent in each of these scopes, in one statement."""
    if not (asked := _question(scopes)):
        return []
    with conn.cursor(row_factory=class_row(Spent)) as cur:
        return cur.execute(asked, _given(payer)).fetchall()


async def spent_by_now(
    conn: AsyncConnection, scopes: Iterable[str], payer: Payer
) -> list[Spent]:
    """As `spent`."""
    if not (asked := _question(scopes)):
        return []
    async with conn.cursor(row_factory=class_row(Spent)) as cur:
        return await (await cur.execute(asked, _given(payer))).fetchall()


def _question(scopes: Iterable[str]) -> LiteralString:
    wanted = set(scopes)
    return " union all ".join(
        "select '"
        + scope
        + "' as scope, coalesce(sum(greatest(t.cost_usd, t.spent_usd)), 0) as usd,"
        " count(*) as turns from turns t " + SCOPES[scope]
        for scope in SCOPES  # in this order, whatever was asked
        if scope in wanted
    )


def _given(payer: Payer | None) -> dict[str, object]:
    return {"job": payer.job, "project": payer.project, "user": payer.user} if payer else {}


def counting(conn: Connection) -> AbstractContextManager[object]:
    """Where there is a budget in turns: a block in which nobody else begins one, so that two that
    begin at once are counted one after the other."""
    if not any(one.turns is not None for one in limits().values()):
        return nullcontext()
    return _alone(conn)


@contextmanager
def _alone(conn: Connection) -> Generator[None]:
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (COUNTED,))
        yield
