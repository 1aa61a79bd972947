"""A row that a table of the product's does not take is told as what it is, once.

What can be known before a turn is paid is refused then (test_product_rules.py): these are rules
that go by what the turn says.
"""

import pytest

from dev.agents.scripted import scripted
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.client import Build

pytestmark = pytest.mark.agent("direct")

SECRET = "a word that only the prompt has"
SHORT = """alter table project_chat_log_minimal
             add constraint short_messages check (length(content) < 5)"""
NARROW = "alter table project_chat_log_minimal alter column content type varchar(5)"


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        (SHORT, 'constraint "short_messages" of table "project_chat_log_minimal"'),
        (NARROW, "value too long for type character varying(5)"),
    ],
)
def test_a_commit_that_a_table_refuses_is_not_paid_for_again(
    at_work: AtWork, rule: str, named: str
):
    other = Build(project="other", user=U, prompt="x", version="v1")
    assert at_work.one(other, scripted(says="y")).state == "done"
    at_work.conn.execute(rule.encode())
    job = at_work.build(SECRET, version="v1", agent=scripted())
    assert (job.state, job.attempts, job.error_class) == ("failed", 1, "refused_by_postgres")
    assert named in (job.error or "")
    assert SECRET not in (job.error or "")
    (turn,) = at_work.turns(job.id)
    assert (turn["outcome"], turn["error_class"]) == ("failed", "refused_by_postgres")
    assert turn["cost_usd"] == 0.25
    assert at_work.head() is None
    assert violations(at_work.conn) == []


def test_a_claim_that_a_table_refuses_fails_the_job(at_work: AtWork):
    at_work.conn.execute(
        "alter table projects add constraint elsewhere check (workspace not like '%shop')"
    )
    asked = at_work.ask(Build(project=P, user=U, prompt="x"))
    ran = at_work.run(asked, scripted())
    job = at_work.job(asked)
    assert (ran.state, job.state, job.error_class) == (
        "failed",
        "failed",
        "refused_by_postgres",
    )
    assert 'constraint "elsewhere" of table "projects"' in (job.error or "")
    told = [kind for (kind,) in at_work.rows("select type from events")]
    assert told == ["chat.said", "job.failed"]
    assert at_work.run(asked, scripted()).state == "failed", "it is said again, and not done"
    assert violations(at_work.conn) == []
