"""The views that compare heads with moves and versions, and the candidates for resuming."""

from uuid import uuid4

from psycopg import Connection

from db.projects import projects
from db.sessions import registry
from tests.ledger import ask, begun, built, claim, commit, next_job, one


def status(conn: Connection) -> dict[str, str]:
    rows = conn.execute("select project_id, sync_status from session_sync").fetchall()
    return dict(rows)


def test_a_project_without_versions_or_sessions_is_in_step(conn: Connection):
    ask(conn, project="new")
    commit(conn, begun(conn, "chat_plan", project="talk"), source="chat_plan")
    conn.execute("insert into project_versions (project_id, version_id) values ('new', 'v0')")
    assert status(conn) == {"new": "SYNCED", "talk": "SYNCED"}


def test_a_chat_moves_the_head_on_and_leaves_the_version_in_step(conn: Connection):
    build = built(conn)
    chat = commit(conn, begun(conn, "chat_plan"), source="chat_plan")
    row = conn.execute(
        "select last_ai_session_id, version_session_id, sync_status from session_sync"
    ).fetchone()
    assert row == (chat.head, build.head, "SYNCED")


def test_a_write_past_the_ledger_is_out_of_step(conn: Connection):
    for project in ("head", "version", "both"):
        built(conn, project)
    conn.execute("update projects set last_ai_session_id = 'x' where project_id = 'head'")
    conn.execute("update project_versions set ai_session_id = 'x' where project_id = 'version'")
    assert status(conn) == {"head": "OUT_OF_SYNC", "version": "OUT_OF_SYNC", "both": "SYNCED"}


def test_the_newest_version_is_the_one_that_was_made_last(conn: Connection):
    built(conn, version="v9")
    second = built(conn, version="v10")
    built(conn, version="v9")  # built again: still the older one
    newest = projects.latest_version(conn, "p")
    assert newest
    assert (newest.version_id, newest.ai_session_id) == ("v10", second.head)
    assert status(conn) == {"p": "SYNCED"}


def test_the_chain_shows_every_step_newest_first(conn: Connection):
    following = next_job()
    first = built(conn, following=following).head
    job = claim(conn, following.id)
    assert job
    job = commit(conn, job, step="a", source="metadata", version_id="v1", final=False)
    second = job.head
    third = commit(conn, job, step="b", source="metadata", version_id="v1").head
    rows = [
        (row["source"], row["old_session_id"], row["new_session_id"])
        for row in projects.session_chain(conn, "p")
    ]
    assert rows == [
        ("metadata", second, third),
        ("metadata", first, second),
        ("build", None, first),
    ]


def test_candidates_are_the_head_the_hint_the_versions_and_older_heads(conn: Connection):
    first, hint = built(conn, version="v1").head, built(conn, version="v2").head
    older, head = built(conn, version="v3").head, built(conn, version="v3").head
    job = begun(conn, "update", version="v1")
    found = registry.candidates(conn, job, user_id="u", handed=hint)
    assert [(each.session_id, each.rank) for each in found] == [
        (head, 0),
        (hint, 1),
        (first, 2),
        (older, 3),
    ]


def test_no_session_of_another_project_or_user_is_a_candidate(conn: Connection):
    theirs, mine = built(conn, "theirs").head, built(conn).head
    job = begun(conn, "update")
    conn.execute(
        "update project_versions set ai_session_id = %s where project_id = 'p'", (theirs,)
    )
    for handed in (theirs, str(uuid4()), "'; --"):
        found = registry.candidates(conn, job, user_id="u", handed=handed)
        assert [each.session_id for each in found] == [mine]
    assert registry.candidates(conn, job, user_id="another", handed=None) == []
    conn.execute("update project_ai_session_metrics set user_id = 'another'")
    assert registry.candidates(conn, job, user_id="u", handed=None) == []


def test_a_hint_that_was_never_a_head_is_no_candidate(conn: Connection):
    built(conn)
    conn.execute(
        "insert into project_ai_session_metrics (session_id, project_id, user_id)"
        " values ('planted', 'p', 'u')"
    )
    job = begun(conn, "update")
    found = registry.candidates(conn, job, user_id="u", handed="planted")
    assert [each.session_id for each in found] == [job.head]


def test_a_head_that_the_registry_does_not_have_loses_no_other_candidate(conn: Connection):
    older = built(conn).head
    head = built(conn, version="v2").head
    conn.execute("delete from project_ai_session_metrics where session_id = %s", (head,))
    found = registry.candidates(conn, begun(conn), user_id="u", handed=None)
    assert [each.session_id for each in found] == [older]
    assert one(conn, "select last_ai_session_id from projects") == head
