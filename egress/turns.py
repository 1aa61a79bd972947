"""Whose a request is: the turn of its token, looked up in the ledger with each request.

While Postgres is away a turn that was known goes on for as long as its lease was known to last.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import psycopg
import psycopg_pool

from config.log import log
from db.core.async_pool import Pool
from db.sessions import tokens
from db.sessions.tokens import Holder
from egress.answers import ENDED, Refused

AT_ONCE = 10  # requests of one turn to the model; more of them wait
TOLD = 50  # hosts of a job that are told of, of each kind
REMEMBERED = 2000  # turns
AWAY = (psycopg.Error, psycopg_pool.PoolTimeout)


@dataclass(eq=False)
class Turn:
    """A turn while it runs. `spent` (USD) is what was counted of it, here or elsewhere."""

    holder: Holder
    until: float
    spent: float
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    told: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    @property
    def is_over(self) -> bool:
        """Whether it has spent what it may."""
        return self.holder.budget_usd is not None and self.spent >= self.holder.budget_usd


class Turns:
    """The turns that were heard of here, by their tokens."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known = OrderedDict[str, Turn]()

    async def of(self, token: str) -> Turn:
        """The turn that has the token. Raises Refused, and AWAY if that cannot be known."""
        key = tokens.digest(token)
        known = self._known.get(key)
        try:
            async with self._pool.connection() as conn:
                holder = await tokens.holder(conn, token)
        except AWAY:
            if known and time.monotonic() < known.until:
                return known
            raise
        if holder is None:
            self._known.pop(key, None)
            raise Refused(
                ENDED, "The turn of this token is over, or was never of this Baton's database."
            )
        return self._note(key, known, holder)

    def _note(self, key: str, known: Turn | None, holder: Holder) -> Turn:
        until = time.monotonic() + holder.seconds
        turn = known or Turn(holder, until, holder.spent_usd)
        turn.until, turn.spent = until, max(turn.spent, holder.spent_usd)
        self._known[key] = turn
        self._known.move_to_end(key)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return turn

    async def charge(self, turn: Turn, usd: float) -> None:
        """Count it. Where there is no budget nobody asks, and nothing is written."""
        turn.spent += usd
        if turn.holder.budget_usd is None or not usd:
            return
        try:
            async with self._pool.connection() as conn:
                await tokens.spend(conn, turn.holder.turn, usd)
        except AWAY as exc:
            log.warning("egress.not_charged", error=type(exc).__name__)

    async def tell(self, turn: Turn, kind: str, host: str, why: str | None = None) -> None:
        """Write down, once, that the turn's job reached a host or was not let through to it."""
        said = (kind, host)
        if said in turn.told or sum(one == kind for one, _ in turn.told) >= TOLD:
            return
        turn.told.add(said)
        body = {"host": host} | ({"why": why} if why else {})
        log.info(kind, project_id=turn.holder.project_id, job=str(turn.holder.job_id), **body)
        try:
            async with self._pool.connection() as conn:
                await tokens.tell(conn, turn.holder, kind, body)
        except AWAY as exc:
            log.warning("egress.not_told", error=type(exc).__name__)
