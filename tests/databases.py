"""Databases for tests: each test has one of its own, as the template is.

A copy of the template goes to the next test once all rows are out of it again. One in which a
test has touched more than rows (a table, a function, a setting, statistics) is dropped.
Copying for each test took a third of the suite's CPU.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import LiteralString
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from tests.waiting import wait_until

# All that is no row of a table of ours, by the transactions that wrote it.
SHAPE: LiteralString = """
    select (select count(*) || ' ' || max(xmin::text::bigint) from pg_class),
           (select count(*) || ' ' || max(xmin::text::bigint) from pg_attribute),
           (select count(*) || ' ' || max(xmin::text::bigint) from pg_attrdef),
           (select count(*) || ' ' || max(xmin::text::bigint) from pg_constraint),
           (select count(*) || ' ' || max(xmin::text::bigint) from pg_trigger),
           (select count(*) || ' ' || max(xmin::text::bigint) from pg_proc),
           (select count(*) || ' ' || max(xmin::text::bigint) from pg_type),
           (select count(*) || ' ' || max(xmin::text::bigint) from pg_index),
           (select count(*) || ' ' || max(xmin::text::bigint) from pg_rewrite),
           (select count(*) || ' ' || max(xmin::text::bigint) from pg_namespace),
           (select count(*) from pg_extension),
           (select count(*) from pg_statistic s join pg_class c on c.oid = s.starelid
             where c.relnamespace = 'public'::regnamespace),
           (select count(*) from pg_event_trigger),
           (select count(*) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
             where d.datname = current_database()),
           (select string_agg(m::text, ' ' order by m::text) from baton_migrations m)"""
OTHERS: LiteralString = """
    select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid()
       and backend_type in ('client backend', 'parallel worker')"""
TABLES: LiteralString = """
    select oid::regclass::text from pg_class
     where relnamespace = 'public'::regnamespace and relkind = 'r'
       and relname <> 'baton_migrations'"""
SEQUENCES: LiteralString = """
    select setval(seqrelid::regclass, seqstart, false) from pg_sequence"""


class Databases:
    """The copies of one server's template that no test has just now. Each is emptied on a connection that
    stays with it: a new one costs as much as all the rest."""

    def __init__(self, server: str, template: str) -> None:
        self._server, self._template = server, template
        self._free = list[tuple[str, psycopg.Connection]]()
        self._shape: tuple[object, ...] | None = None  # of an untouched copy
        self._tables = list[str]()

    @contextmanager
    def one(self) -> Generator[str]:
        """The URL of a database with our schema and no rows, until the block ends."""
        name, own = self._free.pop() if self._free else self._copied()
        try:
            yield within(self._server, name)
        finally:
            if self._is_as_it_was(own):
                self._free.append((name, own))
            else:
                own.close()
                execute(self._server, f"drop database {name} with (force)")

    def close(self) -> None:
        """End the connections."""
        while self._free:
            self._free.pop()[1].close()

    def _copied(self) -> tuple[str, psycopg.Connection]:
        name = f"test_{uuid4().hex}"
        execute(
            self._server, f"create database {name} template {self._template} strategy file_copy"
        )
        own = psycopg.connect(within(self._server, name), autocommit=True)
        own.execute(
            "set session_replication_role = replica"
        )  # rows go without triggers and keys
        if self._shape is None:
            self._shape = own.execute(SHAPE).fetchone()
            self._tables = [table for (table,) in own.execute(TABLES)]
        return name, own

    def _is_as_it_was(self, own: psycopg.Connection) -> bool:
        """End who is still connected, take all rows out; whether that leaves it untouched."""
        try:
            wait_until(lambda: not own.execute(OTHERS).fetchall(), description="all to go")
            if own.execute(SHAPE).fetchone() != self._shape:
                return False
            looks = ", ".join(f"exists (select from {table})" for table in self._tables)
            filled = own.execute(f"select {looks}".encode()).fetchone() or ()
            full = [table for table, rows in zip(self._tables, filled, strict=True) if rows]
            own.execute("; ".join(f"delete from {table}" for table in full).encode())
            own.execute(SEQUENCES)
        except (psycopg.Error, AssertionError):
            return False
        return True


@contextmanager
def database(server: str, how: str) -> Generator[str]:
    """The URL of a database made as `how` says, until the block ends."""
    name = f"test_{uuid4().hex}"
    execute(server, f"create database {name} {how}")
    try:
        yield within(server, name)
    finally:
        execute(server, f"drop database {name} with (force)")


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def within(url: str, database: str) -> str:
    """The URL of another database of the same server."""
    return f"{url.rpartition('/')[0]}/{database}"


def by_default(dsn: str, name: str, value: str) -> None:
    """Let the database have that default from the next connection on."""
    database = urlsplit(dsn).path[1:]
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            sql.SQL("alter database {} set {} = {}").format(
                sql.Identifier(database), sql.Identifier(name), value
            )
        )
