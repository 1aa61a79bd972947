"""Settings that rules in SQL go by: the ledger holds them, so that they hold at every door.

A worker writes those of its environment when it starts, and whoever migrates those that are set
where it does. So what operators give their workers holds; doctor names what differs elsewhere.
"""

from typing import Any, Literal

from psycopg import Connection
from psycopg.types.json import Jsonb

from config.settings import settings


def here() -> dict[str, Any]:
    """What the environment of this process says."""
    root = settings().workspaces
    return {
        "prompt_limit": settings().prompt_limit,
        "user_rate": settings().user_rate,
        "user_slots": settings().user_slots,
        "budgets": settings().day_budgets,
        "callback_hosts": settings().callbacks_to,
        "check": settings().check,
        "workspaces": list(dict.fromkeys((str(root.resolve()), str(root)))),
    }


def tell(conn: Connection, *, only_given: bool = False) -> None:
    """Write the settings of this process into the ledger; with `only_given` no defaults."""
    given = settings().model_fields_set
    told = {k: v for k, v in here().items() if k in given or not only_given}
    if conn.execute("select to_regclass('baton_settings')").fetchone() == (None,):
        return  # an older release's tables
    conn.execute(
        """
        insert into baton_settings as s (name, value)
        select key, value from jsonb_each(%s)
            on conflict (name) do update set value = excluded.value, at = now()
         where s.value <> excluded.value
        """,
        (Jsonb(told),),
    )


def held(conn: Connection) -> dict[str, Any]:
    """What the ledger goes by, as far as it was told."""
    return dict(conn.execute("select name, value from baton_settings").fetchall())


def differing(conn: Connection) -> list[str]:
    """The names of what is set here to something else than the ledger goes by."""
    known, mine = held(conn), here()
    given = settings().model_fields_set & mine.keys() & known.keys()
    return sorted(name for name in given if mine[name] != known[name])


def fitness(conn: Connection) -> tuple[Literal["ok", "warn"], str]:
    """Whether what is set here holds, and a sentence: for `baton doctor`."""
    if other := differing(conn):
        names = ", ".join(f"BATON_{name.upper()}" for name in other)
        return "warn", (
            f"{names}: the ledger goes by other values, the newest worker's; set them alike, and"
            " start the workers again."
        )
    return "ok", "the ledger goes by those that are set here"
