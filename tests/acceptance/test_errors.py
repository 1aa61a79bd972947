"""What goes wrong, end to end through Celery: rows of the error table, and lost sessions.

The jobs here are chat-plan questions where they can be: one turn each.
"""

from uuid import uuid4

import pytest

from tests.acceptance.outside import Baton, Row, is_sentence
from tests.waiting import wait_until
from worker.client import Build, ChatPlan

ODD = "Was “blau” gemeint?\n\n\tOr $HOME, {cwd}, </project-history> and `rm`? 100 %"


def test_an_overloaded_model_is_tried_again_and_the_prompt_stays(baton: Baton):
    project = baton.project()
    baton.model.fault("529", when="teapot 1", times=2)
    job = baton.ask(ChatPlan(project=project, user="ann", prompt="teapot 1"))
    assert baton.task_in(str(job), "RETRY")["name"] == "tasks.chat_plan"
    done = baton.ended(job)
    assert (done["state"], done["attempts"], done["error"]) == ("done", 2, None)
    assert baton.turns(project, "teapot 1") == 2
    assert {one.prompts for one in baton.seen(project)} == {("teapot 1",)}
    (waits,) = baton.events(project, "job.waits")
    assert waits["body"]["error_class"] == "overloaded"
    assert 0 < waits["body"]["delay"] <= 1
    assert len(baton.moves(project)) == 1, "the failed try moved nothing"
    assert baton.task_in(f"{job}.1", "SUCCESS")["root_id"] == str(job)


def test_an_unknown_model_fails_with_a_sentence_and_is_not_tried_again(baton: Baton):
    project = baton.project()
    baton.model.fault("404", model="teapot", times=-1)
    job = baton.chat(project, "what is it?", model="teapot-9")
    assert (job["state"], job["attempts"]) == ("failed", 1)
    assert job["error_class"] == "model_not_found"
    assert "choose another model" in job["error"]
    assert is_sentence(job["error"])
    shown = baton.task_in(str(job["id"]), "FAILURE")
    assert job["error"] in shown["exception"]
    assert baton.head(project) is None


def test_a_limit_with_a_time_parks_the_job_for_that_time(baton: Baton):
    project = baton.project()
    baton.model.fault("429", when="teapot 2", retry_after=45)
    job = baton.ask(ChatPlan(project=project, user="ann", prompt="teapot 2"))
    parked = baton.until(job, "parked")
    assert parked["error_class"] == "rate_limit"
    (told,) = baton.events(project, "job.parked")
    assert 40 <= (parked["run_at"] - told["at"]).total_seconds() <= 60
    assert [one["body"]["reason"] for one in baton.events(project, "credential.limited")] == [
        "rate_limit"
    ]
    baton.task_in(str(job), "RETRY")
    _let_pass(baton, seconds=60)
    done = baton.ended(job)
    assert (done["state"], done["attempts"]) == ("done", 1), "parking spends no try"


def test_a_refused_key_parks_every_project_until_it_is_cleared(baton: Baton):
    first, second = baton.project(), baton.project()
    baton.model.fault("401", when="teapot 3", times=-1)
    asked = baton.ask(ChatPlan(project=first, user="ann", prompt="teapot 3"))
    parked = baton.until(asked, "parked")
    assert parked["error_class"] == "authentication_failed"
    assert "ANTHROPIC_API_KEY" in parked["error"]
    later = baton.ask(ChatPlan(project=second, user="bob", prompt="and I?"))
    baton.until(later, "parked")
    assert baton.seen(second) == [], "the model was not asked with a key that it refuses"
    limited = baton.events(first, "credential.limited") + baton.events(
        second, "credential.limited"
    )
    assert [one["body"]["reason"] for one in limited] == ["authentication_failed"]
    baton.model.clear_faults()
    doctor = baton.cli("doctor")
    assert "cleared" in doctor.stdout, doctor.stdout + doctor.stderr
    assert [baton.ended(one)["state"] for one in (asked, later)] == ["done", "done"]


@pytest.mark.long
def test_a_refused_build_leaves_the_head_and_the_next_goes_on_from_it(baton: Baton):
    project = baton.project()
    head = _begun(baton, project, "what is teapot 4?")
    baton.model.fault("400", when="break teapot 4", times=-1)
    failed = baton.ended(baton.ask(Build(project=project, user="ann", prompt="break teapot 4")))
    assert (failed["state"], failed["error_class"]) == ("failed", "request_refused")
    assert is_sentence(failed["error"])
    assert baton.tries(failed["id"]) == [
        (head, "failed", "request_refused"),
        (head, "rejected", "request_refused"),
        (None, "failed", "request_refused"),
    ]
    assert baton.head(project) == head
    assert len(baton.jobs(project)) == 2, "a failed build ends its chain"
    assert baton.rows("select 1 from project_versions where project_id = %s", project) == []
    done = baton.chat(project, "and now?")
    (_, move) = baton.moves(project)
    assert move["parent_session_id"] == move["old_session_id"] == head
    assert baton.seen_of(project, "and now?").prompts == ("what is teapot 4?", "and now?")
    assert done["state"] == "done"


@pytest.mark.long  # tests/integration/test_retry.py
def test_a_failed_job_can_be_asked_for_again(baton: Baton):
    project = baton.project()
    baton.model.fault("400", when="teapot 5", times=-1)
    failed = baton.chat(project, "teapot 5")
    assert failed["state"] == "failed"
    baton.model.clear_faults()
    again = baton.cli_json("retry", str(failed["id"]))
    row = baton.row("select id from jobs where retry_of = %s", failed["id"])
    assert again["id"] == str(row["id"])
    assert baton.ended(row["id"])["state"] == "done"
    assert baton.job(failed["id"])["state"] == "failed"
    refused = baton.cli("retry", str(uuid4()))
    assert refused.returncode == 1
    assert is_sentence(refused.stderr)


@pytest.mark.long
@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_head_whose_transcript_is_lost_is_passed_over_and_the_past_retold(
    baton: Baton, how: str
):
    project = baton.project()
    head = _begun(baton, project, "what is the copper kettle?")
    _lose(baton, head) if how == "gone" else _damage(baton, project)
    job = baton.chat(project, ODD)
    reason = {"gone": "not_found", "damaged": "damaged"}[how]
    assert job["state"] == "done"
    assert baton.tries(job["id"]) == [(head, "rejected", reason), (None, "fresh", reason)]
    *_, move = baton.moves(project)
    assert (move["source"], move["reason"]) == ("fallback", reason)
    assert (move["old_session_id"], move["parent_session_id"]) == (head, None)
    (told,) = baton.events(project, "session.resume_failed")
    assert told["body"]["code"] == reason
    assert told["body"]["text"].startswith("Previous session not found.")
    seen = baton.seen(project)[-1]
    assert seen.prompt == ODD.strip(), "word for word"
    assert "what is the copper kettle?" in seen.history
    assert _resumable(baton, head) == (how == "gone")


@pytest.mark.long
def test_an_older_head_is_gone_on_from_when_only_the_newest_is_lost(baton: Baton):
    project = baton.project()
    first = _begun(baton, project, "remember the first kettle")
    second = _begun(baton, project, "remember the second kettle")
    _lose(baton, second)
    job = baton.chat(project, "which kettles?")
    assert baton.tries(job["id"]) == [
        (second, "rejected", "not_found"),
        (first, "resumed", None),
    ]
    *_, move = baton.moves(project)
    assert (move["old_session_id"], move["parent_session_id"]) == (second, first)
    assert (move["source"], move["reason"]) == ("chat_plan", "not_found")
    assert baton.seen(project)[-1].prompts == ("remember the first kettle", "which kettles?")


@pytest.mark.long
def test_a_stale_session_is_not_resumed_and_stays_resumable(baton: Baton):
    project = baton.project()
    head = _begun(baton, project, "what is the iron kettle?")
    baton.conn.execute(
        "update project_ai_session_metrics set last_used_at = now() - interval '25 hours'"
        " where session_id = %s",
        (head,),
    )
    job = baton.chat(project, "and after a day?")
    assert baton.tries(job["id"]) == [(head, "rejected", "stale"), (None, "fresh", "stale")]
    *_, move = baton.moves(project)
    assert (move["parent_session_id"], move["reason"]) == (None, "stale")
    assert "what is the iron kettle?" in baton.seen(project)[-1].history
    metrics = baton.row("select * from project_ai_session_metrics where session_id = %s", head)
    assert metrics["stale_at"]
    assert metrics["status"] == "expired"
    assert metrics["is_resumable"], "an operator may go back to it"


@pytest.mark.long  # tests/contracts/test_error_table.py has each fault
def test_a_job_for_which_all_goes_wrong_fails_and_hurts_nobody(baton: Baton):
    bad, good = baton.project("bad"), baton.project("good")
    before = len(baton.up.log("worker"))
    for kind in ("500", "garbage"):
        baton.model.fault(kind, when="everything bad", times=2)
    baton.model.fault("reset", when="everything bad", times=-1)
    asked = baton.ask(ChatPlan(project=bad, user="ann", prompt="everything bad"))
    failed = baton.ended(asked)
    assert (failed["state"], failed["attempts"]) == ("failed", 3)
    assert is_sentence(failed["error"])
    # Children of the pool live on too: the same ones take the next jobs.
    assert baton.chat(good, "are you there?")["state"] == "done"
    assert "WorkerLostError" not in baton.up.log("worker")[before:]


def _begun(baton: Baton, project: str, prompt: str) -> str:
    """A head for the project, from one turn."""
    done = baton.chat(project, prompt)
    assert done["state"] == "done", done["error"]
    head = baton.head(project)
    assert head
    return head


def _lose(baton: Baton, session: str) -> None:
    baton.lose(session)
    wait_until(lambda: not _batches(baton, session), description="the transcript to be gone")


def _batches(baton: Baton, session: str) -> list[Row]:
    return baton.rows("select id from transcript_batches where session_id = %s", session)


def _damage(baton: Baton, project: str) -> None:
    """Lose some of the bodies that the session refers to."""
    baton.conn.execute(
        "delete from transcript_entries where id in (select id from transcript_entries"
        " where project_id = %s order by id limit 3)",
        (project,),
    )


def _let_pass(baton: Baton, *, seconds: float) -> None:
    """As if that time had passed for what is parked."""
    baton.conn.execute(
        """
        with l as (update limits set until = until - %(gone)s * interval '1 second')
        update jobs set run_at = run_at - %(gone)s * interval '1 second',
               publish_after = publish_after - %(gone)s * interval '1 second'
         where state = 'parked'
        """,
        {"gone": seconds},
    )


def _resumable(baton: Baton, session: str) -> bool:
    return baton.row(
        "select is_resumable from project_ai_session_metrics where session_id = %s", session
    )["is_resumable"]
