"""Whose a directory is: no two projects work in one, whatever door they came through and when."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from db.core import ledger_settings
from db.core.codes import refusal
from tests.conftest import Configure
from tests.ledger import ask, at_once, begun, blocked, one
from tests.running import AtWork, U
from tests.waiting import wait_until
from worker.client import BadWorkspace, Build, enqueue

pytestmark = pytest.mark.agent("direct")

MINE, THEIRS = {"project": "mine", "user_id": "me"}, {"project": "theirs", "user_id": "them"}


@pytest.fixture
def root(tmp_path: Path, configure: Configure, conn: Connection) -> Path:
    """The root of workspaces, as a worker has told the ledger."""
    place = tmp_path / "spaces"
    place.mkdir()
    configure(BATON_WORKSPACES=str(place))
    ledger_settings.tell(conn)
    return place


def free(conn: Connection, **asked: Any) -> bool:
    """Whether it is taken; what is refused must be so for its place."""
    try:
        ask(conn, **asked)
    except psycopg.Error as exc:
        why = refusal(exc)
        assert why
        assert why.code == "bad_workspace"
        return False
    return True


# Two places below the root, the first of which somebody has, and whether they touch.
PAIRS = [
    ("theirs", "theirs", True),
    ("theirs", "theirs/deep/er", True),
    ("theirs/deep", "theirs", True),
    ("theirs/a", "theirs/b", False),
    ("theirs", "theirsandmore", False),
    ("a/theirs", "theirs", False),
    ("theirs-2", "theirs", False),
]


def test_a_place_that_was_given_touches_no_other_that_was_given(conn: Connection, root: Path):
    for number, (theirs, mine, touches) in enumerate(PAIRS):
        under = root / f"pair{number}"
        assert free(conn, project=f"t{number}", workspace=str(under / theirs))
        assert free(conn, project=f"m{number}", workspace=str(under / mine)) is not touches


@pytest.mark.parametrize("claimed", [False, True])
def test_the_place_of_a_projects_id_is_given_to_nobody_else(
    conn: Connection, root: Path, claimed: bool
):
    begun(conn, **THEIRS) if claimed else ask(conn, **THEIRS)
    for place in (root / "theirs", root / "theirs" / "deep"):
        assert not free(conn, **MINE, workspace=str(place))
        assert not free(conn, **MINE, options={"workspace": str(place)})
    assert free(conn, **MINE, workspace=str(root / "mine" / "deep"))
    assert one(conn, "select count(*) from projects") == 2


def test_a_place_that_was_given_is_not_that_of_a_new_projects_id(conn: Connection, root: Path):
    for number, place in enumerate(("theirs", "others/deep")):
        assert free(conn, project=f"m{number}", workspace=str(root / place))
    assert not free(conn, **THEIRS)
    assert not free(conn, project="others")
    assert free(conn, project="free")


def test_a_place_below_another_root_is_that_of_the_id(conn: Connection, root: Path):
    """The root has moved, or the project is from a host with another one."""
    conn.execute(
        "insert into projects (project_id, user_id, workspace) values ('old', 'u', '/was/x')"
    )
    assert not free(conn, **MINE, workspace=str(root / "old"))
    assert free(conn, **MINE, workspace=str(root / "x"))


def test_directories_of_batons_own_and_places_outside_are_nobodys(conn: Connection, root: Path):
    for place in (root, root.parent / "away", root / ".trees" / "x", root / ".branches" / "x"):
        assert not free(conn, **MINE, workspace=str(place))
    assert not free(conn, **MINE, workspace=f"{root}-2/x")


def test_a_project_may_name_the_place_that_it_has(conn: Connection, root: Path):
    ask(conn, **MINE)
    assert free(conn, **MINE, workspace=str(root / "mine"))
    assert not free(conn, **MINE, workspace=str(root / "other"))
    begun(conn, **THEIRS)
    assert free(conn, **THEIRS, workspace=str(root / "theirs"))


@pytest.mark.parametrize("given_first", [True, False])
def test_who_asks_for_one_place_at_once_takes_turns(
    conn: Connection, dsn: str, root: Path, given_first: bool
):
    asked: list[dict[str, Any]] = [{**MINE, "workspace": str(root / "theirs" / "x")}, THEIRS]
    if not given_first:
        asked.reverse()
    with (
        psycopg.connect(dsn) as first,
        psycopg.connect(dsn, autocommit=True) as looker,
        ThreadPoolExecutor() as threads,
    ):
        ask(first, **asked[0])
        waits = threads.submit(free, conn, **asked[1])
        wait_until(lambda: blocked(looker), description="the second to wait for the first")
        first.commit()
        assert waits.result(10) is False
    assert one(conn, "select count(*) from projects") == 1


def test_new_projects_at_their_own_places_do_not_wait_for_each_other(
    conn: Connection, dsn: str
):
    conn.execute("set lock_timeout = '2s'")
    with psycopg.connect(dsn) as producer:
        for number in range(2000):  # of 1024 locks each is taken, and shared
            ask(producer, project=f"p{number}")
        for number in range(20):
            ask(conn, project=f"q{number}")


def test_of_many_that_touch_one_is_taken(conn: Connection, dsn: str, root: Path):
    places = ["x", "x/a", "x/a/b", "x", "x/a", "x/a/b", "x", "x/a"]

    def work(own: Connection) -> bool:
        place = places.pop()
        return free(own, project=f"p{own.info.backend_pid}", workspace=str(root / place))

    assert [each is True for each in at_once(dsn, work)].count(True) == 1


def test_a_symlinked_alias_of_the_root_is_the_root(conn: Connection, root: Path):
    alias = root.parent / "alias"
    alias.symlink_to(root)
    (root / "theirs").mkdir()
    ask(conn, **THEIRS)
    with pytest.raises(BadWorkspace, match="is not free"):
        enqueue(conn, Build(project="mine", user="me", prompt="x", workspace=f"{alias}/theirs"))
    with pytest.raises(psycopg.Error, match="is outside"):  # SQL sees no links
        ask(conn, **MINE, workspace=f"{alias}/theirs")
    (root / "own").mkdir()
    enqueue(conn, Build(project="mine", user="me", prompt="x", workspace=f"{alias}/own"))
    place = one(conn, "select workspace from projects where project_id = 'mine'")
    assert place == str(root / "own")


def test_a_root_that_is_a_link_is_known_by_both_its_names(
    conn: Connection, tmp_path: Path, configure: Configure
):
    real, link = tmp_path / "real", tmp_path / "link"
    (real / "w").mkdir(parents=True)
    link.symlink_to(real)
    configure(BATON_WORKSPACES=str(link))
    ledger_settings.tell(conn)
    conn.execute(
        "insert into projects (project_id, user_id, workspace) values ('old', 'u', %s)",
        (str(link / "w"),),
    )
    assert not free(conn, **MINE, workspace=str(real / "w"))
    assert not free(conn, **MINE, workspace=str(link / "w"))


def test_before_a_worker_has_told_where_workspaces_lie_none_is_given(conn: Connection):
    with pytest.raises(psycopg.Error, match="not known yet: start a worker"):
        ask(conn, **MINE, workspace="/srv/w")
    assert ask(conn, **MINE)


def test_no_project_is_looked_at_that_is_not_in_question(conn: Connection, root: Path):
    """Among many projects a new one is no slower: each question is a probe of an index."""
    conn.execute(
        """
        insert into projects (project_id, user_id, workspace)
        select 'many' || n, 'u', %s || '/many' || n from generate_series(1, 5000) n
        """,
        (str(root),),
    )
    conn.execute(
        """
        insert into project_versions (project_id, version_id)
        select 'many' || n, 'v' || n from generate_series(1, 5000) n
        """
    )
    conn.execute("analyze projects, project_versions")
    with conn.transaction():
        for number in range(8):  # often enough for plans that serve all parameters
            assert ask(conn, project=f"new{number}")
            assert ask(conn, project=f"given{number}", workspace=str(root / f"g{number}" / "x"))
            assert ask(conn, project=f"many{number + 1}")
        scanned = one(
            conn,
            "select coalesce(sum(seq_scan), 0) from pg_stat_xact_user_tables"
            " where relname in ('projects', 'project_versions')",
        )
    assert scanned == 0


def test_a_job_whose_directory_is_really_anothers_is_refused_before_its_agent_runs(
    at_work: AtWork,
):
    """An agent without a box has put a link in the place of its workspace."""
    at_work.build("write mine.txt: mine")
    theirs = Build(project="theirs", user="them", prompt="write secret.txt: s")
    assert at_work.one(theirs).state == "done"
    place = at_work.place
    for file in place.iterdir():
        file.unlink()
    place.rmdir()
    place.symlink_to(place.with_name("theirs"))
    asked = len(at_work.model.requests)
    job = at_work.one(Build(project="shop", user=U, prompt="say what is here"))
    assert (job.state, job.error_class) == ("failed", "bad_request")
    assert "is another project's too" in (job.error or "")
    assert len(at_work.model.requests) == asked, "no turn was paid"
    assert at_work.one(theirs).state == "done", "the other goes on"


def test_two_that_share_a_directory_already_are_told_before_the_agent_runs(at_work: AtWork):
    at_work.build("write mine.txt: mine")
    at_work.conn.execute(
        "insert into projects (project_id, user_id, workspace) values ('twin', 'eve', %s)",
        (str(at_work.place),),
    )
    job = at_work.one(Build(project="twin", user="eve", prompt="say what is here"))
    assert (job.state, job.error_class) == ("failed", "bad_request")
