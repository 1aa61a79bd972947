"""How many live connections a user may have: counted in an account, and one after the other."""

import asyncio
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

from psycopg import AsyncConnection, Connection

from db.live import connections
from tests.waiting import wait_until

WAITS = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"


def begin(
    conn: AsyncConnection, project: str, user: str = "ann", *, most: int = 1
) -> Coroutine[Any, Any, bool]:
    return connections.begin(
        conn, uuid4(), project=project, user=user, tab=None, gateway="g", most=most
    )


async def opened(dsn: str) -> AsyncConnection:
    return await AsyncConnection.connect(dsn, autocommit=True)


def test_a_users_connections_are_counted_over_the_projects_of_one_account(
    dsn: str, conn: Connection
):
    for account, *projects in (("acme", "a1", "a2"), ("other", "o1")):
        conn.execute("insert into accounts (id) values (%s)", (account,))
        for project in projects:
            conn.execute("insert into account_projects values (%s, %s)", (project, account))

    async def story() -> list[bool]:
        async with await opened(dsn) as one:
            return [
                await begin(one, project, user)
                for project, user in (
                    ("a1", "ann"),
                    ("a2", "ann"),  # the same account's user
                    ("o1", "ann"),  # another account calls somebody so too
                    ("nobodys", "ann"),
                    ("nobodys too", "ann"),
                    ("a2", "bob"),
                )
            ]

    assert asyncio.run(story()) == [True, False, True, True, False, True]


def test_of_two_connections_at_once_the_second_counts_the_first(dsn: str, conn: Connection):
    def waits(other: AsyncConnection) -> bool:
        return conn.execute(WAITS, (other.info.backend_pid,)).fetchone() == (True,)

    async def second(one: AsyncConnection, two: AsyncConnection) -> bool:
        async with one.transaction():
            assert await begin(one, "shop")
            asked = asyncio.create_task(begin(two, "shop"))
            await asyncio.to_thread(
                wait_until,
                lambda: asked.done() or waits(two),
                description="the second to wait, or to be done",
            )
        return await asked

    async def story() -> bool:
        async with await opened(dsn) as one, await opened(dsn) as two:
            return await second(one, two)

    assert asyncio.run(story()) is False
    assert conn.execute("select count(*) from live_connections").fetchone() == (1,)


def test_a_connection_whose_gateway_fell_silent_does_not_count(dsn: str, conn: Connection):
    async def story() -> list[bool]:
        async with await opened(dsn) as one:
            first = await begin(one, "shop")
            conn.execute(
                "update live_connections set last_active_at = now() - interval '1 hour'"
            )
            return [first, await begin(one, "shop"), await begin(one, "shop")]

    assert asyncio.run(story()) == [True, True, False]
