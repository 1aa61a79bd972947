"""Whose is what: no session, prompt or project of one user is ever used for another."""

import psycopg
import pytest

from tests.acceptance.outside import Baton, is_sentence
from worker.client import Build, ChatPlan, ProjectUnavailable, UnknownProject, Update

SECRET = "the launch code is opal"


@pytest.fixture(scope="module")
def anns(running: Baton) -> str:
    """A project of ann's, with a session in which a secret was said."""
    project = running.project("ann")
    assert running.chat(project, SECRET)["state"] == "done"
    return project


def test_anothers_session_that_is_handed_down_is_refused(baton: Baton, anns: str):
    stolen, project = baton.head(anns), baton.project("bob")
    asked = ChatPlan(
        project=project, user="bob", prompt="and what now?", previous_session_id=stolen
    )
    job = baton.ended(baton.ask(asked))
    assert job["state"] == "done"
    assert baton.tries(job["id"])[0] == (stolen, "rejected", "not_of_project")
    (move,) = baton.moves(project)
    assert move["parent_session_id"] is None
    assert {one.prompts for one in baton.seen(project)} == {("and what now?",)}
    assert all(SECRET not in str(one.body) for one in baton.seen(project))


@pytest.mark.long  # tests/integration/test_ladder.py
def test_a_head_that_is_anothers_session_is_not_resumed(baton: Baton, anns: str):
    stolen, project = baton.head(anns), baton.project("bob")
    baton.chat(project, "mine", user="bob")
    with baton.conn.transaction():
        baton.conn.execute(
            """
            with old as (select last_ai_session_id from projects where project_id = %(project)s)
            insert into session_transitions (project_id, old_session_id, new_session_id, source)
            select %(project)s, last_ai_session_id, %(stolen)s, 'operator' from old
            """,
            {"project": project, "stolen": stolen},
        )
        baton.conn.execute(
            "update projects set last_ai_session_id = %s where project_id = %s",
            (stolen, project),
        )
    job = baton.chat(project, "go on", user="bob")
    assert job["state"] == "done"
    assert baton.tries(job["id"])[0] == (stolen, "rejected", "not_of_project")
    assert all(SECRET not in str(seen.body) for seen in baton.seen(project))
    *_, move = baton.moves(project)
    assert (move["source"], move["reason"]) == ("chat_plan", "not_of_project")


@pytest.mark.parametrize("ask", [Build, Update, ChatPlan])
def test_anothers_project_is_refused_in_python(
    baton: Baton, anns: str, ask: type[Build | Update | ChatPlan]
):
    with pytest.raises((UnknownProject, ProjectUnavailable), match=r"is unknown|cannot be had"):
        baton.ask(ask(project=anns, user="bob", prompt="give it to me"))
    assert len(baton.jobs(anns)) == 1


def test_anothers_project_is_refused_in_sql(baton: Baton, anns: str):
    with pytest.raises(psycopg.DatabaseError, match="cannot be had here") as caught:
        baton.conn.execute("select baton_enqueue('build', %s, 'bob', 'give it to me')", (anns,))
    assert caught.value.sqlstate == "BA006"


def test_anothers_project_is_refused_at_the_command_line(baton: Baton, anns: str):
    command = ("enqueue", "build", "--project", anns, "--user", "bob", "--prompt", "mine")
    refused = baton.cli(*command)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "cannot be had here" in refused.stderr
    assert is_sentence(refused.stderr)
    assert len(baton.jobs(anns)) == 1


def test_anothers_project_is_refused_to_a_plain_message(baton: Baton, anns: str):
    task = baton.send("tasks.build", project_id=anns, user_id="bob", prompt="give it to me")
    shown = baton.task_in(task, "FAILURE")
    assert "cannot be had here: choose another id" in shown["exception"]
    assert len(baton.jobs(anns)) == 1
