"""What the voice sessions of one gateway share: Postgres, the writer, what accounts have left."""

import asyncio

from db.core.async_pool import Pool
from db.live import voice
from db.live.voice import Kept
from gateway import ledger
from gateway.voice.writer import Name, Writer

SOON = 1.0  # seconds for an answer about credit; without one the stream goes on


class Desk:
    """Made when the gateway starts, and gone with it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.writer = Writer(pool)
        self._charges: dict[str, set[asyncio.Future[int | None]]] = {}

    async def load(self, account: str, session: str) -> Kept | None:
        """What is known of a session. Raises one of ledger.ERRORS."""
        newer = self.writer.waiting((account, session))
        async with self._pool.connection() as conn:
            row = await voice.load(conn, account, session)
        if newer is None:
            return row
        return Kept(newer[0] or (row.data if row else None), newer[1])

    def charge(self, name: Name, tokens: int) -> "asyncio.Future[int | None]":
        """Charge the account for a response; what is left comes when that is written."""
        account = name[0]
        charge = self.writer.charge(name, tokens)
        open_ones = self._charges.setdefault(account, set())
        open_ones.add(charge)

        def made(done: "asyncio.Future[int | None]") -> None:
            open_ones.discard(done)
            if not open_ones and self._charges.get(account) is open_ones:
                del self._charges[account]

        charge.add_done_callback(made)
        return charge

    async def may_speak(self, account: str) -> bool:
        """Whether the account has something left, after what is being charged now. True where
        Postgres does not say so soon: the stream goes on, and is charged."""
        if charges := self._charges.get(account):
            await asyncio.wait(set(charges), timeout=SOON)
        try:
            async with asyncio.timeout(SOON), self._pool.connection() as conn:
                left = await voice.left(conn, account)
        except ledger.ERRORS as exc:  # the time-out is an OSError
            if not ledger.is_away(exc):
                raise
            return True
        return left is None or left > 0
