"""The schema that people read is the one that the migrations make."""

from psycopg import Connection

from dev.stack.schema import FILE, schema


def test_the_file_of_the_schema_is_what_the_migrations_make(conn: Connection) -> None:
    assert schema(conn) == FILE.read_text(), "the schema has changed: `make schema`"
