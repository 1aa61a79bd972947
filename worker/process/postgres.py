"""What the database is like that we were given: a pooler before it, and defaults that hurt."""

from typing import Literal

import psycopg
from psycopg import Connection

from config.log import log
from db.core import pool
from db.core.connections import Own
from db.core.pool import NoDatabase

Verdict = tuple[Literal["ok", "warn", "fail"], str]

# From these on, in seconds, a limit of the database's is none for us.
LONG_ENOUGH = {
    "statement_timeout": 60,  # a clean-up, a report
    "transaction_timeout": 60,
    "lock_timeout": 5,  # a deletion waits for as long
    "idle_in_transaction_session_timeout": 10,  # a request in its producer's transaction
}
ISOLATION = "default_transaction_isolation"


def answers(conn: Own) -> str:
    """Who answers, in words."""
    told = f"version {conn.info.server_version // 10000} answers"
    if conn.pooled:
        told += (
            ", through a connection pooler: no statement is prepared, and each is a transaction"
            " of its own; a direct connection is quicker"
        )
    return told


def defaults(conn: Connection) -> Verdict:
    """Whether what the database, or our role, has by default will do for us."""
    told, verdict = list[str](), "ok"
    for name, value in _defaults(conn).items():
        if sentence := _harm(name, value):
            told.append(sentence)
            verdict = "fail" if name == "default_transaction_read_only" else "warn"
    if not told:
        return "ok", "its defaults suit"
    return verdict, " ".join([*told, "(alter database … set …, or alter role … set …)"])


def _defaults(conn: Connection) -> dict[str, str]:
    """Settings as a session has them that says nothing of them; times are in milliseconds."""
    asked = [*LONG_ENOUGH, ISOLATION, "synchronous_commit", "default_transaction_read_only"]
    rows = conn.execute(
        "select name, reset_val from pg_settings where name = any(%s) order by name", (asked,)
    )
    return dict(rows.fetchall())


def _harm(name: str, value: str) -> str | None:
    """What this default does to us, if it does."""
    match name, value:
        case "default_transaction_read_only", "on":
            return f"{name} is on: nothing can be written, no job will run; set it off."
        case "synchronous_commit", "off":
            return (
                f"{name} is off: when Postgres crashes, jobs that were acknowledged and turns"
                " that were paid may be lost; set it on."
            )
        case "default_transaction_isolation", _ if value != "read committed":
            return (
                f"{name} is {value}: our own connections do not care, but a request within a"
                " producer's transaction may be refused for others that came meanwhile, or with"
                " busy=reject, replace or interrupt miss them; begin these at read committed."
            )
        case _ if name in LONG_ENOUGH and 0 < int(value) < LONG_ENOUGH[name] * 1000:
            return (
                f"{name} is {int(value) / 1000:g} s: what takes longer is broken off, again and"
                f" again; give it {LONG_ENOUGH[name]} s or more."
            )
        case _:
            return None


def tell_at_start() -> None:
    """Say in a process's log, once, what `baton doctor` says of the database."""
    try:
        with pool.connect() as conn:
            state, told = defaults(conn)
            if conn.pooled:
                log.info("postgres.pooled", told=answers(conn))
            if state != "ok":
                log.warning("postgres.unfit", error=told)
    except (NoDatabase, psycopg.Error) as exc:
        log.warning("postgres.away", error=str(exc))
