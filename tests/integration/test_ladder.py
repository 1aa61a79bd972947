"""Which session a job resumes, and what it is told where the head cannot be."""

from uuid import uuid4

import pytest

from config.settings import settings
from db.projects import projects
from dev.agents.scripted import scripted
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.client import Build, Update
from worker.failures.sentences import SENTENCES
from worker.job.job_events import LOST_SESSION
from worker.session import ladder

pytestmark = pytest.mark.agent("direct")

PROMPT = "Please make the header blue; keep  the spaces\nand lines."


def heads(at_work: AtWork, count: int) -> list[str]:
    """So many sessions of the project, oldest first, made without a CLI."""
    return [made(at_work, f"prompt {n}") for n in range(count)]


def made(at_work: AtWork, prompt: str) -> str:
    job = at_work.build(prompt, agent=scripted())
    assert job.state == "done", job.error
    head = at_work.head()
    assert head
    return head


@pytest.mark.agent("cli")
def test_a_session_that_is_gone_is_not_resumed_and_nothing_is_forgotten(at_work: AtWork):
    at_work.build("write index.html: <h1>Hello</h1>")
    head = at_work.head()
    assert head
    at_work.lose(head)
    job = at_work.build(PROMPT)
    assert job.state == "done"
    seen = at_work.model.requests[-1]
    assert seen.prompts == (PROMPT,)  # word for word
    assert "write index.html: <h1>Hello</h1>" in seen.history  # and what was before it
    assert "index.html" in seen.history
    assert at_work.tries(job.id) == [
        (head, "rejected", "not_found"),
        (None, "fresh", "not_found"),
    ]
    assert at_work.moves()[-1] == ("fallback", "not_found", head, at_work.head(), None)
    (told,) = at_work.events("session.resume_failed")
    assert (told["code"], told["text"]) == ("not_found", LOST_SESSION)
    assert told["choices"] == ["retry", "start_new"]


def test_the_next_older_head_is_resumed_when_the_head_is_gone(at_work: AtWork):
    at_work.build("write a.txt: 1")
    older = at_work.head()
    at_work.build("write b.txt: 2")
    head = at_work.head()
    assert head
    at_work.lose(head)
    job = at_work.build("write c.txt: 3")
    assert at_work.model.requests[-1].prompts == ("write a.txt: 1", "write c.txt: 3")
    assert at_work.tries(job.id) == [(head, "rejected", "not_found"), (older, "resumed", None)]
    assert at_work.moves()[-1] == ("update", "not_found", head, at_work.head(), older)
    assert at_work.events("session.resume_failed") == []


def test_a_damaged_session_is_condemned_for_good(at_work: AtWork):
    (head,) = heads(at_work, 1)
    at_work.conn.execute("update transcript_entries set body = '\\x00' where uuid is not null")
    job = at_work.build("go on", agent=scripted())
    assert at_work.tries(job.id)[0] == (head, "rejected", "damaged")
    assert at_work.rows(
        """
        select is_resumable, resume_failure_count from project_ai_session_metrics
         where session_id = %s
        """,
        head,
    ) == [(False, 1)]
    at_work.lose(at_work.head() or "")
    later = at_work.build("go on", agent=scripted())
    assert (head, "rejected", "not_resumable") in at_work.tries(later.id)


def test_a_stale_session_is_marked_and_passed_over_but_stays_resumable(at_work: AtWork):
    (head,) = heads(at_work, 1)
    at_work.age(head, 25)
    job = at_work.build("go on", agent=scripted())
    assert at_work.tries(job.id) == [(head, "rejected", "stale"), (None, "fresh", "stale")]
    assert at_work.moves()[-1][:2] == ("fallback", "stale")
    assert at_work.rows(
        """
        select is_resumable, stale_at is not null from project_ai_session_metrics
         where session_id = %s
        """,
        head,
    ) == [(True, True)]


def test_a_session_used_within_the_day_is_resumed(at_work: AtWork):
    (head,) = heads(at_work, 1)
    at_work.age(head, 23)
    job = at_work.build("go on", agent=scripted())
    assert at_work.tries(job.id) == [(head, "resumed", None)]


def test_a_session_that_is_not_resumable_is_passed_over(at_work: AtWork):
    (head,) = heads(at_work, 1)
    at_work.conn.execute("update project_ai_session_metrics set is_resumable = false")
    job = at_work.build("go on", agent=scripted())
    assert at_work.tries(job.id)[0] == (head, "rejected", "not_resumable")
    assert at_work.moves()[-1][:2] == ("fallback", "not_resumable")


def test_what_a_rewind_has_undone_is_not_gone_on_from(at_work: AtWork):
    first, head, undone = heads(at_work, 3)
    projects.rewind(at_work.conn, P, head)
    at_work.lose(head)
    job = at_work.build("go on", agent=scripted())
    assert at_work.tries(job.id) == [(head, "rejected", "not_found"), (first, "resumed", None)]
    assert at_work.moves()[-1][-1] != undone
    assert violations(at_work.conn) == []


def test_an_id_handed_down_that_is_older_than_the_head_is_only_a_hint(at_work: AtWork):
    older, head = heads(at_work, 2)
    job = at_work.build("go on", agent=scripted(), previous_session_id=older)
    assert at_work.tries(job.id) == [(head, "resumed", None), (older, "rejected", "stale_hint")]
    assert at_work.moves()[-1][4] == head


def test_an_id_handed_down_is_the_next_choice_when_the_head_is_gone(at_work: AtWork):
    older, _, head = heads(at_work, 3)
    at_work.lose(head)
    job = at_work.build("go on", agent=scripted(), previous_session_id=older)
    assert at_work.tries(job.id) == [(head, "rejected", "not_found"), (older, "resumed", None)]


@pytest.mark.parametrize(("project", "user"), [("other", U), ("other", "bob")])
def test_a_session_of_another_project_or_user_is_never_used(
    at_work: AtWork, project: str, user: str
):
    at_work.one(Build(project=project, user=user, prompt="a secret"), scripted())
    theirs = at_work.value(
        "select last_ai_session_id from projects where project_id = %s", project
    )
    job = at_work.build("begin", agent=scripted(), previous_session_id=theirs)
    assert at_work.tries(job.id) == [
        (theirs, "rejected", "not_of_project"),
        (None, "fresh", "not_of_project"),
    ]
    assert at_work.moves()[-1][0] == "build"
    later = at_work.build("go on", agent=scripted(), previous_session_id=theirs)
    assert (theirs, "rejected", "not_of_project") in at_work.tries(later.id)
    assert at_work.moves()[-1][0] == "update"


def test_another_users_session_of_the_same_project_is_never_used(at_work: AtWork):
    (head,) = heads(at_work, 1)
    at_work.conn.execute("update project_ai_session_metrics set user_id = 'bob'")
    job = at_work.build("go on", agent=scripted())
    assert at_work.tries(job.id)[0] == (head, "rejected", "not_of_project")
    assert at_work.moves()[-1] == ("fallback", "not_of_project", head, at_work.head(), None)


def test_an_unknown_id_is_passed_over(at_work: AtWork):
    (head,) = heads(at_work, 1)
    stranger = str(uuid4())
    job = at_work.build("go on", agent=scripted(), previous_session_id=stranger)
    assert at_work.tries(job.id) == [
        (stranger, "rejected", "unknown"),
        (head, "resumed", None),
    ]
    assert at_work.moves()[-1][:2] == ("update", None)


def test_a_head_without_a_row_in_the_registry_is_no_crash(at_work: AtWork):
    (head,) = heads(at_work, 1)
    at_work.conn.execute("delete from project_ai_session_metrics")
    job = at_work.build("go on", agent=scripted())
    assert job.state == "done"
    assert at_work.tries(job.id)[0] == (head, "rejected", "unknown")
    assert at_work.moves()[-1] == ("fallback", "unknown", head, at_work.head(), None)


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [("BATON_RESUME_ENABLED", "false", "resume_off"), ("BATON_RESUME_PERCENT", "0", "control")],
)
def test_with_resuming_off_each_turn_begins_fresh_and_says_why(
    at_work: AtWork, setting: str, value: str, reason: str
):
    (head,) = heads(at_work, 1)
    at_work.configure(**{setting: value})
    job = at_work.build("go on", agent=scripted())
    assert at_work.tries(job.id) == [(None, "fresh", reason)]
    assert at_work.moves()[-1] == ("reset", reason, head, at_work.head(), None)
    assert at_work.events("session.resume_failed") == []  # nothing was lost


def test_the_rollout_takes_about_its_share_and_always_the_same_projects(at_work: AtWork):
    at_work.configure(BATON_RESUME_PERCENT="50")
    projects = [f"project-{n}" for n in range(400)]
    chosen = {project for project in projects if ladder.in_rollout(project)}
    assert 150 < len(chosen) < 250
    at_work.configure(BATON_RESUME_PERCENT="75")
    assert chosen < {project for project in projects if ladder.in_rollout(project)}


def test_a_session_begins_anew_after_its_turns(at_work: AtWork):
    at_work.configure(BATON_RESET_AFTER_TURNS="2")
    heads(at_work, 3)
    assert [move[:2] for move in at_work.moves()] == [
        ("build", None),
        ("update", None),
        ("reset", "reset"),
    ]


def test_an_operators_fresh_start_is_heeded_once(at_work: AtWork):
    heads(at_work, 1)
    at_work.conn.execute("update projects set fresh_next = true")
    heads(at_work, 2)
    assert [move[:2] for move in at_work.moves()] == [
        ("build", None),
        ("reset", "asked_fresh"),
        ("update", None),
    ]


def test_a_request_that_wants_to_be_asked_waits_with_its_prompt(at_work: AtWork):
    (head,) = heads(at_work, 1)
    at_work.lose(head)
    asked = at_work.ask(Update(project=P, user=U, prompt=PROMPT, on_lost="ask"))
    assert at_work.run(asked, scripted()).state == "waits"
    job = at_work.job(asked)
    assert (job.state, job.error_class, job.finished_at) == ("parked", "ask", None)
    assert job.args["prompt"] == PROMPT
    assert "retry or start_new" in (job.error or "")
    assert at_work.tries(asked) == [(head, "rejected", "not_found")]
    assert len(at_work.events("session.resume_failed")) == 1
    assert at_work.head() == head


def test_start_new_lets_a_waiting_request_begin_fresh(at_work: AtWork):
    from db.sessions.turns import answer

    (head,) = heads(at_work, 1)
    at_work.lose(head)
    asked = at_work.ask(Update(project=P, user=U, prompt=PROMPT, on_lost="ask"))
    at_work.run(asked, scripted())
    assert not answer(at_work.conn, asked, "perhaps")
    assert answer(at_work.conn, asked, "start_new")
    assert not answer(at_work.conn, asked, "start_new")  # it does not wait any more
    assert at_work.run(asked).state == "done"
    assert at_work.model.requests[-1].prompts == (PROMPT,)
    assert at_work.moves()[-1] == ("fallback", "not_found", head, at_work.head(), None)


def test_retry_lets_a_waiting_request_look_for_the_session_again(at_work: AtWork):
    from db.sessions.turns import answer

    (head,) = heads(at_work, 1)
    kept = at_work.rows("select * from transcript_sessions where session_id = %s", head)
    at_work.conn.execute(
        "update transcript_sessions set session_id = 'moved' where session_id = %s", (head,)
    )
    asked = at_work.ask(Update(project=P, user=U, prompt=PROMPT, on_lost="ask"))
    at_work.run(asked, scripted())
    assert answer(at_work.conn, asked, "retry")
    assert at_work.run(asked, scripted()).state == "waits"  # still gone: asked again
    at_work.conn.execute(
        "update transcript_sessions set session_id = %s where session_id = 'moved'", (head,)
    )
    assert kept == at_work.rows("select * from transcript_sessions where session_id = %s", head)
    assert answer(at_work.conn, asked, "retry")
    assert at_work.run(asked, scripted()).state == "done"
    assert at_work.tries(asked)[-1] == (head, "resumed", None)


@pytest.mark.agent("cli")
def test_a_lost_session_is_told_of_once_in_an_attempt(at_work: AtWork):
    at_work.begin("write a.txt: 1")
    at_work.model.fault("400", times=-1)  # for the head, and then for the fresh session
    job = at_work.build("write b.txt: 2")
    assert (job.state, job.error_class) == ("failed", "request_refused")
    assert len(at_work.events("session.resume_failed")) == 1
    assert SENTENCES["request_refused"].split(":")[0] in (job.error or "")


def test_an_id_that_is_no_uuid_is_never_sent_to_the_cli(at_work: AtWork):
    heads(at_work, 1)
    for table, column in (
        ("projects", "last_ai_session_id"),
        ("project_ai_session_metrics", "session_id"),
        ("session_transitions", "new_session_id"),
    ):
        at_work.conn.execute(f"update {table} set {column} = 'My site'".encode())
    job = at_work.build("go on", agent=scripted())
    assert at_work.tries(job.id)[0] == ("My site", "rejected", "not_a_uuid")


def test_the_digest_stays_within_its_bounds(at_work: AtWork):
    at_work.configure(BATON_DIGEST_CHARS="2000")
    for n in range(4):
        made(at_work, f"{n} " + "very long " * 2000)
    at_work.conn.execute("update project_ai_session_metrics set is_resumable = false")
    at_work.build(PROMPT)
    seen = at_work.model.requests[-1]
    assert seen.prompts == (PROMPT,)
    assert 500 < len(seen.history) < 3000
    assert settings().digest_chars == 2000


def test_a_long_head_of_many_turns_is_compacted_first_while_the_cache_is_warm(at_work: AtWork):
    at_work.configure(BATON_RESET_AFTER_TURNS="1")
    at_work.build("write a.txt: a")
    head = at_work.head()
    at_work.conn.execute("update project_ai_session_metrics set context_tokens = 150000")
    assert at_work.build("write b.txt: b").state == "done"
    (source, reason, old, compacted, _), (*_, parent) = at_work.moves()[1:]
    assert (source, reason, old, parent) == ("compact", "turns", head, compacted)
    (told,) = at_work.events("session.weighed")
    assert (told["why"], told["way"]) == ("turns", "compact")
    assert told["costs"]["compact"] < told["costs"]["fresh"]


def test_a_head_of_many_turns_is_left_for_a_fresh_session_where_nothing_is_to_be_compacted(
    at_work: AtWork,
):
    at_work.configure(BATON_RESET_AFTER_TURNS="1", BATON_COMPACT="never")
    at_work.build("begin", agent=scripted())
    at_work.conn.execute("update project_ai_session_metrics set context_tokens = 150000")
    assert at_work.build("go on", agent=scripted()).state == "done"
    assert at_work.moves()[-1][:2] == ("reset", "reset")


def test_an_older_session_is_not_gone_on_from_where_the_head_is_too_stale(at_work: AtWork):
    """It may be the shorter one, and knows less than the digest of them all."""
    at_work.configure(BATON_DIGEST_CHARS="20000")
    older, head = heads(at_work, 2)
    for session, tokens in ((older, 6_000), (head, 60_000)):
        at_work.age(session, hours=25)
        at_work.conn.execute(
            "update project_ai_session_metrics set context_tokens = %s where session_id = %s",
            (tokens, session),
        )
    job = at_work.build("go on", agent=scripted())
    assert at_work.tries(job.id) == [
        (head, "rejected", "stale"),
        (older, "rejected", "stale"),
        (None, "fresh", "stale"),
    ]


def test_a_stale_head_shorter_than_its_digest_is_resumed_and_the_event_says_why(
    at_work: AtWork,
):
    at_work.build("write a.txt: a")
    head = at_work.head()
    assert head
    at_work.age(head, hours=25)
    at_work.configure(BATON_DIGEST_CHARS="100000")
    assert at_work.build("write b.txt: b").state == "done"
    assert at_work.moves()[-1][-1] == head
    (told,) = at_work.events("session.weighed")
    assert (told["why"], told["way"]) == ("stale", "resume")
    stale = "select stale_at is not null from project_ai_session_metrics where session_id = %s"
    assert at_work.value(stale, head)


def test_a_project_that_others_rebuilt_begins_a_fresh_session(at_work: AtWork):
    at_work.build("\n".join(f"write {n}.txt: {n}" for n in range(6)))
    head = at_work.head()
    for n in range(4):
        (at_work.place / f"{n}.txt").unlink()
    at_work.build("say what is there")
    assert at_work.moves()[-1][:3] == ("reset", "restructured", head)
    assert at_work.model.requests[-1].prompts[-1] == "say what is there"
    assert "write 0.txt" in at_work.model.requests[-1].history


def test_edits_and_a_few_files_of_others_do_not_end_a_session(at_work: AtWork):
    at_work.build("write a.txt: a\nwrite b.txt: b")
    head = at_work.head()
    (at_work.place / "a.txt").write_text("edited")
    (at_work.place / "c.txt").write_text("new")
    at_work.build("say ok")
    assert at_work.moves()[-1][-1] == head
