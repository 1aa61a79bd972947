"""What is of one line of work, or of one user, of a project is not taken for another's."""

from datetime import timedelta
from uuid import uuid4

import pytest
from psycopg import Connection

from db.jobs.attempts import Claimed
from db.operations import upkeep
from db.projects import branches, projects
from db.projects.heads import HeadHeld
from db.sessions import registry
from tests.invariants import violations
from tests.ledger import ask as asked_for
from tests.ledger import begun, built, claim, commit, contents, finish


def beside(conn: Connection, session: str | None, **more: str) -> Claimed:
    """A job that runs on the branch that follows from the session."""
    return begun(conn, "chat_plan", options={"branch_from": session}, **more)


def turned(conn: Connection, session: str | None, **more: str) -> Claimed:
    """A turn on the branch that follows from the session, done."""
    return commit(conn, beside(conn, session), source="chat_plan", **more)


def hand_over(conn: Connection, to: str) -> None:
    """As the product does it."""
    conn.execute("update projects set user_id = %s where project_id = 'p'", (to,))


def test_another_users_branch_does_not_take_the_heads_place(conn: Connection):
    first = built(conn)
    branch = turned(conn, first.head)
    hand_over(conn, "eve")
    before = contents(conn)
    with pytest.raises(HeadHeld, match="branch is another user's than the project: ask"):
        branches.promote(conn, "p", branch.lane)
    assert contents(conn) == before
    conn.execute("update project_ai_session_metrics set user_id = null")
    branches.promote(conn, "p", branch.lane)
    assert violations(conn) == []


def test_the_head_does_not_go_back_to_another_users_session(conn: Connection):
    first, _ = built(conn), built(conn, version="v2")
    assert first.head
    hand_over(conn, "eve")
    before = contents(conn)
    with pytest.raises(HeadHeld, match="session is another user's than the project: choose"):
        projects.rewind(conn, "p", first.head)
    assert contents(conn) == before
    conn.execute("update project_ai_session_metrics set user_id = null")
    projects.rewind(conn, "p", first.head)
    assert violations(conn) == []


def tried(conn: Connection, job: Claimed) -> list[str]:
    found = registry.candidates(conn, job, user_id="u", handed=job.previous_session_id)
    return [each.session_id for each in found]


def test_a_branch_goes_on_from_nothing_but_its_own_and_where_it_began(conn: Connection):
    began, later = built(conn).head, built(conn, version="v2").head
    other = turned(conn, began).head
    first = turned(conn, began)
    second = turned(conn, first.head)
    for handed, expected in (
        (later, [second.head, began]),
        (other, [second.head, began]),
        (began, [second.head, began]),
        (first.head, [second.head, first.head, began]),
        (str(uuid4()), [second.head, began]),
    ):
        job = beside(conn, second.head, previous_session_id=handed or "")
        assert job.lane == first.lane
        assert tried(conn, job) == expected
        finish(conn, job, "failed")
    main = claim(conn, asked_for(conn, "chat_plan", previous_session_id=began))
    assert main
    assert tried(conn, main) == [later, began], "the main line as ever"


SOURCES = "select session_id, source from turn_costs"


def test_a_promoted_branchs_turns_are_told_as_a_branchs_and_no_others(conn: Connection):
    main = built(conn).head
    unknown = built(conn, version="v2").head
    other = turned(conn, main).head
    job = turned(conn, unknown)
    newest = turned(conn, job.head).head
    branches.promote(conn, "p", job.lane)
    # A month of the archive that an operator has detached:
    conn.execute("delete from session_transitions where new_session_id = %s", (unknown,))
    assert dict(conn.execute(SOURCES).fetchall()) == {
        main: "build",
        unknown: "unknown",
        other: "branch",
        job.head: "branch",
        newest: "branch",
    }


def test_every_commit_that_a_turn_has_left_is_known(conn: Connection):
    """Also of a branch that has gone on since, and of moves that are in the archive."""
    first = built(conn, tree="first")
    built(conn, version="v2", tree="second")
    branch = turned(conn, first.head, tree="beside")
    turned(conn, branch.head, tree="more")
    trees = ("first", "second", "beside", "more")
    assert all(projects.has_tree(conn, "p", tree) for tree in trees)
    assert not projects.has_tree(conn, "p", "lost")
    assert not projects.has_tree(conn, "q", "first")

    conn.execute("update branches set from_tree = 'began'")
    assert projects.has_tree(conn, "p", "began")
    conn.execute("update project_ai_session_metrics set tree = null")
    conn.execute("update project_versions set tree = null")
    conn.execute("update session_transitions set version_id = null, created_at = '2026-01-01'")
    assert upkeep.archive_transitions(conn, timedelta(days=30)) == 1
    assert projects.has_tree(conn, "p", "first"), "archived"
