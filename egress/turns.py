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
from db.sessions import budgets, tokens
from db.sessions.budgets import WHOSE, Payer
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
    def payer(self) -> Payer:
        return Payer(self.holder.job_id, self.holder.project_id, self.holder.user_id)


class Turns:
    """The turns that were heard of here, by their tokens."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._limits = {
            scope: budget.usd
            for scope, budget in budgets.limits().items()
            if budget.usd is not None
        }
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

    async def used_up(self, turn: Turn) -> str | None:
        """Whose budget is, in a sentence; None: the turn may ask once more. What other turns have
        spent meanwhile counts. Raises AWAY."""
        budget = turn.holder.budget_usd
        if budget is not None and turn.spent >= budget:
            return f"The turn has spent its budget of {budget:g} USD."
        if not self._limits:
            return None
        async with self._pool.connection() as conn:
            found = await budgets.spent_by_now(conn, self._limits, turn.payer)
        for one in found:
            if one.usd >= self._limits[one.scope]:
                name = f"BATON_BUDGET_{one.scope.upper()}_USD"
                return f"The budget of {WHOSE[one.scope]} is used up ({name})."
        return None

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
