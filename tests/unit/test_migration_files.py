"""What a migration file may ask of a table that others work with."""

import re

import pytest

from db.core import migration_files
from db.core.migrate import FILES
from db.core.migration_files import Migration

MIGRATIONS = migration_files.read(FILES)
# Only clean-up writes into the archive, and an index of a table in parts cannot be built beside.
QUIET = {"session_transitions_archive", "session_transitions_to_move"}
BODY = re.compile(r"\$\$.*?\$\$", re.DOTALL)
MADE = re.compile(r"create table (?:if not exists )?(\w+)")
ROWS = re.compile(r"^\s*(?:update|delete from|insert into)\s+(\w+)", re.MULTILINE)
INDEX = re.compile(r"create (?:unique )?index [^;]*? on (?:only )?(\w+)")
CHANGE = re.compile(r"alter table (?:if exists )?(\w+)\s+([^;]+)")
LOOKED_AT = re.compile(
    r"set not null|add constraint(?!.*not valid)|\btype\b|primary key", re.DOTALL
)


def under_locks(migration: Migration) -> str:
    """What of the file is done in a transaction, without what is only written into functions."""
    steps = (step.text for step in migration.steps if step.kind == "in a transaction")
    return BODY.sub("", re.sub(r"--.*", "", "".join(steps)))


@pytest.mark.parametrize("migration", MIGRATIONS, ids=lambda each: each.name)
def test_no_table_that_is_there_is_read_or_written_whole_under_a_lock(migration: Migration):
    text = under_locks(migration)
    mine = {*MADE.findall(text), *QUIET}
    assert set(INDEX.findall(text)) <= mine
    assert set(ROWS.findall(text)) <= mine
    for table, change in CHANGE.findall(text):
        assert table in mine or not LOOKED_AT.search(change), change


@pytest.mark.parametrize("migration", MIGRATIONS, ids=lambda each: each.name)
def test_what_is_done_by_itself_may_be_done_again(migration: Migration):
    for step in migration.steps:
        if step.kind == "by itself":
            assert step.index or "drop index concurrently if exists" in step.text, step.text


@pytest.mark.parametrize("migration", MIGRATIONS, ids=lambda each: each.name)
def test_an_index_that_an_older_fleet_reads_by_goes_when_all_else_is_done(migration: Migration):
    text = "".join(step.text for step in migration.steps)
    assert migration.late or "drop index" not in text
