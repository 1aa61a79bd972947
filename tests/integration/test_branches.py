"""Branches and templates: work beside the main line, and sessions that new projects begin from."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from db.jobs import jobs
from db.jobs.jobs import Job
from db.projects import branches, projects
from db.projects.heads import HeadHeld
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.client import Build, ChatPlan, Refused

pytestmark = pytest.mark.agent("direct")

TEMPLATES = "_template"


def ask_beside(at_work: AtWork, prompt: str, session: str | None) -> UUID:
    return at_work.ask(ChatPlan(project=P, user=U, prompt=prompt, branch_from=session))


def beside(at_work: AtWork, prompt: str, session: str | None) -> Job:
    """A question on a branch from that session, and its end."""
    asked = ask_beside(at_work, prompt, session)
    at_work.run(asked)
    return at_work.job(asked)


def only_branch(at_work: AtWork) -> branches.Branch:
    (branch,) = branches.of_project(at_work.conn, P)
    return branch


def test_a_branch_moves_a_head_of_its_own(at_work: AtWork):
    at_work.build("write a.txt: a")
    head = at_work.head()
    job = beside(at_work, "say beside", head)
    assert job.state == "done"
    branch = only_branch(at_work)
    assert (branch.from_session, branch.lane) == (head, job.lane)
    assert branch.head != head
    assert at_work.head() == head
    assert len(at_work.moves()) == 1
    (told,) = at_work.events("branch.moved")
    assert (told["session"], told["branch"]) == (branch.head, branch.lane)
    assert violations(at_work.conn) == []


def test_a_branch_is_gone_on_with_by_naming_its_newest_session(at_work: AtWork):
    at_work.build("write a.txt: a")
    head = at_work.head()
    first = beside(at_work, "say one", head)
    second = beside(at_work, "say two", only_branch(at_work).head)
    assert second.lane == first.lane
    assert at_work.model.requests[-1].prompts == ("write a.txt: a", "say one", "say two")
    other = beside(at_work, "say three", head)
    assert other.lane != first.lane
    assert at_work.model.requests[-1].prompts == ("write a.txt: a", "say three")


def test_a_branch_does_not_wait_for_the_main_line_nor_hold_it_up(at_work: AtWork):
    at_work.build("write a.txt: a")
    head = at_work.head()
    main = at_work.ask(ChatPlan(project=P, user=U, prompt="say main"))
    at_work.conn.execute(
        "update jobs set run_at = now() + interval '1 h' where id = %s", (main,)
    )
    assert beside(at_work, "say beside", head).state == "done"
    at_work.conn.execute("update jobs set run_at = now() where id = %s", (main,))
    waiting = ask_beside(at_work, "say more", only_branch(at_work).head)
    assert at_work.run(main).state == "done"
    assert at_work.job(waiting).state == "queued"


def test_what_is_said_on_a_branch_is_not_told_to_the_main_line(at_work: AtWork):
    at_work.build("write a.txt: a")
    beside(at_work, "say secret", at_work.head())
    projects.begin_fresh(at_work.conn, P)
    at_work.chat("say fresh")
    assert "write a.txt: a" in at_work.model.requests[-1].history
    assert "secret" not in at_work.model.requests[-1].history


def test_a_branch_takes_the_heads_place_if_that_is_still_where_it_began(at_work: AtWork):
    at_work.build("write a.txt: a")
    head = at_work.head()
    beside(at_work, "say beside", head)
    branch = only_branch(at_work)
    branches.promote(at_work.conn, P, branch.lane)
    assert at_work.head() == branch.head
    source, reason, old, new, parent = at_work.moves()[-1]
    assert (source, reason) == ("fork", "promoted")
    assert (old, new, parent) == (head, branch.head, head)
    at_work.chat("say next")
    assert at_work.model.requests[-1].prompts == ("write a.txt: a", "say beside", "say next")
    assert violations(at_work.conn) == []
    with pytest.raises(HeadHeld, match="promoted already"):
        branches.promote(at_work.conn, P, branch.lane)


def test_a_branch_is_not_promoted_over_a_head_that_nobody_named(at_work: AtWork):
    at_work.build("write a.txt: a")
    beside(at_work, "say beside", at_work.head())
    branch = only_branch(at_work)
    at_work.chat("say meanwhile")
    moved = at_work.head()
    with pytest.raises(HeadHeld, match="has moved on"):
        branches.promote(at_work.conn, P, branch.lane)
    assert at_work.head() == moved
    branches.promote(at_work.conn, P, branch.lane, onto=moved)
    assert at_work.head() == branch.head
    assert violations(at_work.conn) == []


def test_a_branch_with_work_under_way_is_not_promoted(at_work: AtWork):
    at_work.build("write a.txt: a")
    asked = ask_beside(at_work, "say beside", at_work.head())
    lane = at_work.job(asked).lane
    with pytest.raises(HeadHeld, match="no turn of its own"):
        branches.promote(at_work.conn, P, lane)
    at_work.run(asked)
    ask_beside(at_work, "say more", only_branch(at_work).head)
    with pytest.raises(HeadHeld, match="is open"):
        branches.promote(at_work.conn, P, lane)
    with pytest.raises(HeadHeld, match="no branch"):
        branches.promote(at_work.conn, P, "branch-unknown")


def test_a_branch_begins_from_a_session_of_its_own_project_only(at_work: AtWork):
    at_work.build("write a.txt: a")
    head = at_work.head()
    for ask in (
        ChatPlan(project=P, user=U, prompt="x", branch_from=str(uuid4())),
        ChatPlan(project="other", user="eve", prompt="x", branch_from=head),
    ):
        with pytest.raises(Refused, match="no session of this project"):
            at_work.ask(ask)
    with pytest.raises(Refused, match="not a UUID"):
        at_work.ask(ChatPlan(project=P, user=U, prompt="x", branch_from="head"))


def test_a_new_project_begins_from_the_templates_session(at_work: AtWork):
    learn = Build(project="shops", user=TEMPLATES, prompt="say I know how shops are built")
    at_work.one(learn)
    job = at_work.build("write a.txt: a", template="shops")
    assert job.state == "done"
    source, reason, old, new, parent = at_work.moves()[-1]
    template = projects.get(at_work.conn, "shops")
    assert template
    assert (source, reason, old, new) == ("build", "template", None, at_work.head())
    assert parent == template.last_ai_session_id
    assert at_work.model.requests[-1].prompts == (learn.prompt, "write a.txt: a")
    costs = at_work.rows("select cost_usd, cost_estimated from project_ai_session_metrics")
    assert all(cost > 0 and not estimated for cost, estimated in costs)
    at_work.build("say next")
    assert at_work.model.requests[-1].prompts[:2] == (learn.prompt, "write a.txt: a")
    assert violations(at_work.conn) == []


def test_a_template_is_an_operators_and_for_new_projects(at_work: AtWork):
    at_work.build("write a.txt: a")
    with pytest.raises(Refused, match="no template"):
        at_work.ask(Build(project="new", user=U, prompt="x", template=P))
    with pytest.raises(Refused, match="no template"):
        at_work.ask(Build(project="new", user=U, prompt="x", template="unknown"))
    at_work.one(Build(project="shops", user=TEMPLATES, prompt="say ok"))
    with pytest.raises(Refused, match="for the first job"):
        at_work.ask(Build(project=P, user=U, prompt="x", template="shops"))


def build_beside(at_work: AtWork, prompt: str, session: str | None) -> Job:
    """A build on a branch from that session, and its end."""
    return at_work.one(Build(project=P, user=U, prompt=prompt, branch_from=session))


def test_a_branch_has_files_of_its_own_until_it_is_promoted(at_work: AtWork):
    at_work.build("write a.txt: a")
    head = at_work.head()
    at_work.build("write later.txt: later")
    job = build_beside(at_work, "write b.txt: b", head)
    assert (job.state, job.version_id) == ("done", None)
    there = at_work.place.parent / ".branches" / P / job.lane
    assert sorted(path.name for path in there.iterdir()) == ["a.txt", "b.txt"]
    assert sorted(path.name for path in at_work.place.iterdir()) == ["a.txt", "later.txt"]
    branch = only_branch(at_work)
    assert branch.tree
    assert at_work.value("select count(*) from project_versions") == 2
    branches.promote(at_work.conn, P, branch.lane, onto=at_work.head())
    at_work.chat("say what is there")
    assert sorted(path.name for path in at_work.place.iterdir()) == ["a.txt", "b.txt"]
    versions = at_work.rows("select version_id, tree from project_versions order by id")
    assert versions[-1] == (branch.lane, branch.tree)
    assert violations(at_work.conn) == []


def test_a_branch_and_the_main_line_build_at_the_same_time(at_work: AtWork):
    at_work.build("write a.txt: a")
    head = at_work.head()
    prompts = [f"write {name}.txt: {name}\nrun: sleep 1\nsay {name}" for name in "xy"]
    asked = [
        at_work.ask(Build(project=P, user=U, prompt=prompts[0], branch_from=head)),
        at_work.ask(Build(project=P, user=U, prompt=prompts[1])),
    ]
    with ThreadPoolExecutor() as pool:
        ran = list(pool.map(at_work.run, asked))
    assert [one.state for one in ran] == ["done", "done"]
    assert not (at_work.place / "x.txt").exists()
    assert (at_work.place / "y.txt").read_text() == "y"
    assert violations(at_work.conn) == []


def test_an_old_session_that_somebody_chose_is_not_stale(at_work: AtWork):
    at_work.build("write a.txt: a")
    first = at_work.head()
    assert first
    at_work.chat("say two")
    at_work.age(first, hours=72)
    assert beside(at_work, "say beside", first).state == "done"
    assert at_work.model.requests[-1].prompts == ("write a.txt: a", "say beside")
    projects.rewind(at_work.conn, P, first)
    at_work.chat("say again")
    assert at_work.moves()[-1][-1] == first


def test_a_job_of_a_branch_that_was_promoted_is_retried_on_the_main_line(at_work: AtWork):
    at_work.build("write a.txt: a")
    job = beside(at_work, "say beside", at_work.head())
    branches.promote(at_work.conn, P, job.lane)
    again = jobs.again(at_work.conn, job.id)
    assert again
    assert again.lane == "main"
    assert at_work.run(again.id).state == "done"
