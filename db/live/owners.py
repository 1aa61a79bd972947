"""Whose a project is over HTTP: the account's whose key first used it.

A project that no key has used yet belongs to no account. Looking is one probe; to own is an insert
beside the project's row, which is never held: workers commit to it.
"""

from typing import LiteralString

from psycopg import AsyncConnection

# Nobody gets a ticket for a project, or a user, that could never be.
NAMES: LiteralString = (
    "select baton_check_name('The project id', %s, 'project'), baton_check_user(%s)"
)


async def owns(conn: AsyncConnection, account: str, project: str) -> bool:
    """Whether the project is there and the account's; one that is nobody's becomes its own."""
    found = await conn.execute(
        """
        select o.account_id from projects p left join account_projects o using (project_id)
         where p.project_id = %s
        """,
        (project,),
    )
    row = await found.fetchone()
    if row is None:
        return False
    return row[0] == account if row[0] else await take(conn, account, project)


async def take(conn: AsyncConnection, account: str, project: str) -> bool:
    """Make the project the account's, if it is nobody's; whether it is the account's now."""
    found = await conn.execute("select baton_take(%s, %s)", (project, account))
    row = await found.fetchone()
    return bool(row and row[0])
