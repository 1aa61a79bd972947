"""What a job, its project, its user, its account and the whole fleet may spend, and have spent.

A job's budget is for all of its turns; the others are for a day, which begins at 00:00 UTC. Each is
in USD, in turns, or both. A turn that runs counts with what the egress proxy has counted so far, one
that has ended with what it cost, by the CLI or by the proxy, whichever is more: so what was spent
above a budget is in the books. Workers look before each turn (worker/job/budgets.py), the proxy
before each request to the model (egress/turns.py). A day's sum is read from spent_by_day, where turns
that have ended are added up, and from the turns that are not there yet (db/functions/spendings.sql).
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

# What is not in spent_by_day yet: turns that run, and the newest that have ended. The condition is that
# of the index. Read once, and materialized, so that no scope looks through all turns of its own.
REST: LiteralString = """
    with rest (project_id, job_id, usd, turns) as materialized (
        select t.project_id, t.job_id,
               greatest(t.cost_usd, t.spent_usd, 0) - coalesce(t.counted_usd, 0),
               (t.counted_usd is null)::int
          from turns t
         where t.counted_usd is distinct from greatest(t.cost_usd, t.spent_usd, 0::numeric)
           and t.started_at >= date_trunc('day', now(), 'UTC'))"""
DAY: LiteralString = (
    "select s.usd, s.turns from spent_by_day s where s.day = (now() at time zone 'UTC')::date"
)
# Where each turn's cost and number is read, by scope.
SCOPES: dict[LiteralString, LiteralString] = {
    "job": "select greatest(t.cost_usd, t.spent_usd), 1 from turns t where t.job_id = %(job)s",
    "project": DAY
    + """ and s.project_id = %(project)s and s.user_id = ''
        union all select usd, turns from rest where project_id = %(project)s""",
    "user": DAY
    + """ and s.project_id = '' and s.user_id = %(user)s
        union all select usd, turns from rest
         where (select j.user_id from jobs j where j.id = rest.job_id) = %(user)s""",
    # Whose the project is over HTTP; of one that is nobody's there is nothing to add up.
    "account": """
        select x.usd, x.turns
          from account_projects mine join account_projects a using (account_id) cross join lateral (
               """
    + DAY
    + """ and s.project_id = a.project_id and s.user_id = '' limit 1) x
         where mine.project_id = %(project)s
        union all select r.usd, r.turns
          from rest r join account_projects a using (project_id)
          join account_projects mine using (account_id) where mine.project_id = %(project)s""",
    "day": DAY
    + """ and s.project_id = '' and s.user_id = ''
        union all select usd, turns from rest""",
}
WHOSE = {
    "job": "this job",
    "project": "this project today",
    "user": "this user today",
    "account": "this account today",
    "day": "all projects today",
}
COUNTED = 7_239_185_014  # any number of our own: who counts turns before one more begins
LEAST = 100  # turns that have ended before somebody adds them to the day's sums
MOST = 1000  # of them at a time


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
    asked = set(scopes)
    wanted: list[LiteralString] = [scope for scope in SCOPES if scope in asked]  # in this order
    sums: LiteralString = " union all ".join(
        "select '"
        + scope
        + "' as scope, coalesce(sum(usd), 0) as usd, coalesce(sum(turns), 0)::int as turns from ("
        + SCOPES[scope]
        + ") x (usd, turns)"
        for scope in wanted
    )
    return sums if wanted in ([], ["job"]) else REST + sums


def _given(payer: Payer | None) -> dict[str, object]:
    return {"job": payer.job, "project": payer.project, "user": payer.user} if payer else {}


def count(conn: Connection) -> None:
    """Add the day's turns that have ended to its sums, once there are enough, so that nobody reads
    all of them. Where no budget is of a day nobody reads them."""
    if settings().day_budgets:
        conn.execute("select baton_count_turns(%s, %s)", (LEAST, MOST))


def count_all(conn: Connection) -> None:
    """As `count`, however few: before turns are deleted, so that the deletion itself has few to add, if
    any, and until it is through keeps nobody from adding to the sum of all (baton_count_gone)."""
    if settings().day_budgets:
        while conn.execute(COUNT_ALL, (MOST,)).fetchone() == (MOST,):
            pass


COUNT_ALL: LiteralString = "select baton_count_turns(1, %s)"


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
