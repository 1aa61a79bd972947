"""Upkeep of many repositories: all that are due, for a share of the period; looking costs little."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import Connection

from config.settings import settings
from db.core import pool
from tests.conftest import Configure
from worker.workspace import repositories, workspace
from worker.workspace.repositories import MANY, NOTES, OFTEN
from worker.workspace.repository import SAMPLE
from worker.workspace.trees import Trees


@pytest.fixture(autouse=True)
def _here(dsn: str, tmp_path: Path, configure: Configure) -> Iterator[None]:
    pool.close()
    configure(
        DATABASE_URL=dsn, BATON_WORKSPACES=str(tmp_path / "all"), BATON_UPKEEP_EVERY="600"
    )
    yield
    pool.close()


def made(conn: Connection, count: int) -> list[Path]:
    """Repositories of that many projects, of which nobody has looked after one."""
    places = list[Path]()
    for number in range(count):
        project_id = f"p{number}"
        conn.execute(
            "insert into projects (project_id, user_id) values (%s, 'u')", (project_id,)
        )
        trees = Trees(workspace.repository(project_id), settings().workspaces / project_id)
        trees.path.mkdir(parents=True)
        trees.create()
        places.append(trees.git_dir)
    return places


def tended(places: list[Path]) -> int:
    return sum((place / NOTES).exists() for place in places)


def a_period_ago() -> None:
    """The newest run was then."""
    then = time.time() - 2 * OFTEN
    os.utime(settings().workspaces / ".trees" / ".upkeep.lock", (then, then))


def test_a_run_tends_all_that_is_due(conn: Connection):
    places = made(conn, 21)
    assert repositories.run_once() == 21
    assert tended(places) == 21


def test_a_run_ends_with_its_share_of_the_period_and_the_next_goes_on(conn: Connection):
    places = made(conn, 3)
    for number in (1, 2, 3):
        assert repositories.run_once(within=0.0) == 1, "one is begun in any case"
        assert tended(places) == number
        a_period_ago()


def test_where_nothing_was_put_in_since_nothing_is_counted(conn: Connection):
    """Counting what is loose reads directories; a snapshot shows in the repository's own time."""
    (place,) = made(conn, 1)
    assert repositories.run_once() == 1
    a_period_ago()
    then = time.time() - 2 * OFTEN
    for each in (place, place / NOTES):
        os.utime(each, (then, then))
    for number in range(SAMPLE):
        folder = place / "objects" / f"{number:02x}"
        folder.mkdir()
        for n in range(MANY // 256 + 2):
            (folder / f"{n:038x}").write_text("")
    assert repositories.run_once() == 0
    (place / "index.new").write_text("as git writes it")
    (place / "index.new").rename(place / "index")
    assert repositories.due(time.time()) == ["p0"]
