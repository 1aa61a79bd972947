"""Keys that hold a chain and its webhook to one project and one user, and rows older than they."""

from typing import Literal, LiteralString

from psycopg import Connection

# Each key, and which rows break it: they were there before it, or written past it.
KEYS: dict[str, LiteralString] = {
    "jobs_of_one_owner": """
        select count(*) from jobs j where not exists (
            select from jobs c where (c.id, c.project_id, c.user_id)
                                   = (j.chain_id, j.project_id, j.user_id))""",
    "webhooks_of_their_chain": """
        select count(*) from webhooks w where not exists (
            select from jobs c where (c.id, c.project_id, c.user_id)
                                   = (w.chain_id, w.project_id, w.user_id))""",
}


def fitness(conn: Connection) -> tuple[Literal["ok", "warn"], str]:
    """Whether every row is one owner's, and a sentence: for `baton doctor`."""
    rows = conn.execute(
        """
        select conname, conrelid::regclass::text from pg_constraint
         where conname = any(%s) and connamespace = current_schema()::regnamespace
           and not convalidated
        """,
        (list(KEYS),),
    ).fetchall()
    for name, table in rows:
        row = conn.execute(KEYS[name]).fetchone()
        return "warn", (
            f"{row[0] if row else 0} rows of {table} name a chain of another project or user:"
            f" look whose they are, mend or delete them, and `alter table {table} validate"
            f" constraint {name}`."
        )
    return "ok", "each chain is of one project and one user"
