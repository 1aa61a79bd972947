"""How connections of ours read a moment that Python cannot hold.

psycopg raises for one, and the whole answer is lost with it: here it is read as a `Beyond`, so
that one odd row blinds nobody (docs/decisions/0017).
"""

from datetime import datetime

import psycopg
from psycopg import Connection, DataError
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

from db.core.moments import Beyond

TYPE = "timestamptz"


class Patient(Loader):
    """Reads a timestamptz as psycopg does, and what it cannot read as a Beyond."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        found = psycopg.adapters.get_loader(oid, Format.TEXT)
        assert found
        self._load = found(oid, context).load

    def load(self, data: Buffer) -> datetime:
        """The moment."""
        try:
            return self._load(data)
        except DataError:
            return Beyond.of(bytes(data).decode("ascii", "replace"))


def read_patiently(conn: Connection) -> None:
    """Let this connection read every moment that Postgres can hold."""
    conn.adapters.register_loader(psycopg.adapters.types[TYPE].oid, Patient)
