"""How often a connection waits for a lock that somebody holds: counted by Postgres, whatever the machine."""

from typing import Any, LiteralString

from psycopg import Connection

TOLD: LiteralString = """
    set deadlock_timeout = '1ms'; set log_lock_waits = on; set client_min_messages = log"""


def lock_waits(conn: Connection[Any]) -> list[str]:
    """The waits for locks of the connection from now on, for a millisecond or longer."""
    waits = list[str]()

    def told(of: Any) -> None:
        if "still waiting for" in (of.message_primary or ""):
            waits.append(of.message_primary)

    conn.add_notice_handler(told)
    conn.execute(TOLD, prepare=False)
    return waits
