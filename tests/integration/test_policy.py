"""The policy goes by how a project has been worked on, and says why."""

import pytest

from config.settings import settings
from dev.agents.scripted import scripted
from tests.running import AtWork, P, U
from worker.client import Update

LONG = 60_000


def worked_on(at_work: AtWork, *, minutes: int, tokens: int = LONG) -> None:
    """The project has had five updates, so many minutes apart; its session is long."""
    for prompt in "abcde":
        at_work.build(prompt, agent=scripted())
    at_work.conn.execute("update project_ai_session_metrics set context_tokens = %s", (tokens,))
    at_work.conn.execute(
        """
        update project_ai_session_metrics m
           set duration_ms = 0, num_turns = 8, cache_creation_tokens = 10000,
               created_at = created_at - make_interval(mins => (%s * later)::int)
          from (select session_id, count(*) over (order by created_at desc) - 1 as later
                  from project_ai_session_metrics) n
         where n.session_id = m.session_id
        """,
        (minutes,),
    )


@pytest.mark.parametrize(("tokens", "told"), [(LONG, ["compact"]), (20_000, [])])
def test_a_chain_of_a_project_that_rests_long_ends_with_a_compaction_of_a_long_session(
    at_work: AtWork, tokens: int, told: list[str]
):
    worked_on(at_work, minutes=120)
    asked = at_work.ask(Update(project=P, user=U, prompt="go on"))
    at_work.agent = scripted()
    at_work.run(asked)
    at_work.conn.execute("update project_ai_session_metrics set context_tokens = %s", (tokens,))
    jobs = at_work.chain_of(asked)
    result = next(job.result for job in jobs if job.kind == "compaction")
    assert result
    found = [event for event in at_work.events("session.weighed") if event["why"] == "next"]
    assert [event["way"] for event in found] == told
    assert all(event["basis"]["updates"] >= 5 for event in found)
    assert ("skipped" in result) == (not told)


def test_another_version_of_the_cli_is_told_with_what_it_costs(at_work: AtWork):
    at_work.build("a", agent=scripted())
    at_work.conn.execute("update project_ai_session_metrics set cli_version = '2.0.1'")
    job = at_work.build("b", agent=scripted())
    (told,) = at_work.events("session.weighed")
    assert (told["why"], told["way"]) == ("cli_changed", "resume")
    again = at_work.build("c", agent=scripted())
    assert len(at_work.events("session.weighed")) == 1  # cold once, and told once
    assert [outcome for _, outcome, _ in at_work.tries(again.id)] == ["resumed"]
    assert [outcome for _, outcome, _ in at_work.tries(job.id)] == ["resumed"]


def test_all_legs_keep_their_prompts_for_an_hour_once_the_first_does(at_work: AtWork):
    at_work.configure(BATON_PROMPT_CACHE="1h")
    at_work.build("write a.txt: a")
    at_work.configure(BATON_PROMPT_CACHE="auto")
    at_work.chat("what did we do?")
    used = [seen.usage["cache_creation"] for seen in at_work.model.requests if seen.usage]
    assert [each["ephemeral_5m_input_tokens"] for each in used] == [0] * len(used)
    assert used[-1]["ephemeral_1h_input_tokens"] > 0
    assert settings().prompt_cache == "auto"
