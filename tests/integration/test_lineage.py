"""What a fresh session is told is the past of its own line: back from the head, step by step."""

from typing import Any, LiteralString
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg import Connection

from db.jobs.attempts import Claimed
from db.projects import branches, projects
from db.sessions import chat, imports
from db.sessions.chat import Past
from db.sessions.imports import Figures
from db.transcripts.appends import Summary
from tests.invariants import violations
from tests.ledger import begun, built, commit

in_short_runs = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def said(conn: Connection, text: str, *, beside: str | None = None, **more: Any) -> Claimed:
    """A question and its end, on the main line or on a branch from that session."""
    job = begun(conn, "chat_plan", options={"branch_from": beside} if beside else {})
    return commit(conn, job, **({"source": "chat_plan", "chat": [("user", text)]} | more))


def told(conn: Connection, job: Claimed, **more: Any) -> Past:
    """What a fresh session of the line would be told after that job."""
    given: dict[str, Any] = {"lane": job.lane, "head": job.head, "user_id": job.user_id}
    given["messages"] = 99
    return chat.past(conn, job.project_id, **(given | more))


def texts(past: Past) -> list[str]:
    return [text for _, text in past.said]


def product_says(conn: Connection, text: str, *, session: str | None = None) -> None:
    """A message that the product itself has written."""
    conn.execute(
        """
        insert into project_chat_log_minimal (project_id, ai_session_id, role, content)
        values ('p', %s, 'user', %s)
        """,
        (session, text),
    )


def test_each_line_is_told_its_own_past_and_nothing_of_the_other(conn: Connection):
    first = said(conn, "first")
    branch = said(conn, "beside", beside=first.head, summary="of the branch", files=["b.txt"])
    later = said(conn, "later", files=["main.txt"], documentation="main")

    assert texts(told(conn, branch)) == ["first", "beside"]
    assert texts(told(conn, later)) == ["first", "later"]
    assert (told(conn, branch).files, told(conn, later).files) == (["b.txt"], ["main.txt"])
    assert (told(conn, branch).documentation, told(conn, later).documentation) == ("", "main")
    assert (told(conn, branch).summary, told(conn, later).summary) == ("of the branch", None)


def test_a_branch_that_has_no_turn_yet_is_told_where_it_began(conn: Connection):
    first = said(conn, "first")
    said(conn, "later")
    waiting = begun(conn, "chat_plan", options={"branch_from": first.head})
    assert texts(told(conn, waiting)) == ["first"]


def test_turns_that_were_undone_are_not_told_any_more(conn: Connection):
    first = said(conn, "first", files=["1"], summary="1")
    undone = said(conn, "undone", files=["2"], summary="2")
    assert first.head
    assert undone.head
    projects.rewind(conn, "p", first.head)
    assert told(conn, first) == Past("1", [("user", "first")], [], ["1"], "")
    again = said(conn, "instead")
    assert texts(told(conn, again)) == ["first", "instead"]
    projects.rewind(conn, "p", undone.head)
    assert texts(told(conn, undone)) == ["first", "undone"]


def test_what_a_promoted_branch_replaced_is_not_told_and_its_own_turns_are(conn: Connection):
    first = said(conn, "first", files=["first"])
    branch = said(conn, "beside", beside=first.head, files=["beside"], tree="c0ffee")
    replaced = said(conn, "replaced", files=["replaced"])
    branches.promote(conn, "p", branch.lane, onto=replaced.head)
    after = said(conn, "after")
    past = told(conn, after)
    assert texts(past) == ["first", "beside", "after"]
    assert past.files == ["beside"]
    assert past.versions == [branch.lane]


def test_a_branch_of_a_branch_is_told_of_both(conn: Connection):
    first = said(conn, "first")
    outer = said(conn, "outer", beside=first.head)
    more = said(conn, "more", beside=outer.head)
    inner = said(conn, "inner", beside=first.head)
    assert more.lane == outer.lane != inner.lane
    deep = said(conn, "deep", beside=outer.head)  # not the newest of its branch
    assert deep.lane not in (outer.lane, inner.lane)
    assert texts(told(conn, deep)) == ["first", "outer", "deep"]
    assert texts(told(conn, more)) == ["first", "outer", "more"]


def test_what_names_no_session_is_the_main_lines(conn: Connection):
    product_says(conn, "before")
    first = built(conn, version="v1", chat=[("user", "first")])
    outer = said(conn, "outer", beside=first.head)
    product_says(conn, "during", session="a session of the product's")
    inner = said(conn, "inner", beside=outer.head)
    deep = said(conn, "deep", beside=outer.head)
    main = built(conn, version="v2", chat=[("user", "main")])
    assert inner.lane == outer.lane != deep.lane
    assert texts(told(conn, inner)) == ["before", "first", "outer", "inner"]
    assert texts(told(conn, deep)) == ["before", "first", "outer", "deep"]
    assert texts(told(conn, main)) == ["before", "first", "during", "main"]
    assert (told(conn, deep).versions, told(conn, main).versions) == (["v1"], ["v1", "v2"])


def test_a_main_line_that_came_out_of_an_open_branch_hears_the_product(conn: Connection):
    first = said(conn, "first")
    outer = said(conn, "outer", beside=first.head)
    said(conn, "more", beside=outer.head)  # so the next begins in the middle of that branch
    inner = said(conn, "inner", beside=outer.head)
    assert inner.lane != outer.lane
    branches.promote(conn, "p", inner.lane, onto=first.head)
    product_says(conn, "by the product")
    main = built(conn, version="v1", chat=[("user", "main")])
    assert texts(told(conn, main)) == ["first", "outer", "inner", "by the product", "main"]
    assert told(conn, main).versions == ["v1"]


def test_after_a_hand_over_nothing_that_another_user_said_is_told(conn: Connection):
    product_says(conn, "theirs", session="before")
    conn.execute(
        """
        insert into project_ai_session_metrics (session_id, project_id, user_id, summary)
        values ('before', 'p', 'ann', 'of ann')
        """
    )
    ann = begun(conn, "build", user_id="ann")
    commit(conn, ann, version_id="v1", new_version=True, chat=[("user", "secret")],
           summary="of ann", files=["a.txt"])  # fmt: skip
    conn.execute("update projects set user_id = 'eve'")
    product_says(conn, "by the product")
    waiting = begun(conn, "update", user_id="eve")
    past = told(conn, waiting)
    assert past == Past(None, [("user", "by the product")], ["v1"], ["a.txt"], "")
    fresh = {"parent": None, "relation": "fresh", "source": "fallback", "reason": "x"}
    done = commit(conn, waiting, chat=[("user", "of eve")], **fresh)
    assert texts(told(conn, done)) == ["by the product", "of eve"]
    assert told(conn, done).summary is None
    conn.execute("update projects set user_id = 'ann'")
    back = begun(conn, "chat_plan", user_id="ann")
    assert (back.head, texts(told(conn, back))) == (
        done.head,
        ["theirs", "secret", "by the product"],
    ), "the way back leads through eve's"
    assert told(conn, back).summary == "of ann"


def test_nothing_of_another_project_is_told(conn: Connection):
    theirs = commit(conn, begun(conn, project="q"), chat=[("user", "secret")], summary="secret")
    ours = said(conn, "ours")
    conn.execute(  # whatever a step back may come to say
        "update project_ai_session_metrics set old_session_id = %s where session_id = %s",
        (theirs.head, ours.head),
    )
    assert told(conn, ours) == Past(None, [("user", "ours")], [], [], "")


# As it was told before lines were followed: all of the project that is of no branch.
BEFORE: LiteralString = """
    select (select summary from project_ai_session_metrics
             where project_id = 'p' and summary is not null and lane = 'main'
             order by created_at desc limit 1),
           array(select array[role, content] from project_chat_log_minimal c
                  where project_id = 'p'
                    and not exists (select from project_ai_session_metrics m
                                     where m.session_id = c.ai_session_id and m.lane <> 'main')
                  order by created_at, id),
           array(select version_id from project_versions
                  where project_id = 'p' order by created_at, id)"""


def as_before(conn: Connection) -> Past:
    row = conn.execute(BEFORE).fetchone()
    assert row
    summary, said, versions = row
    return Past(summary, [(role, text) for role, text in said], versions)


def plain_line(conn: Connection) -> Claimed:
    """Builds, metadata, compactions, a question and a session that was lost, in the main line."""
    built(conn, version="v1", chat=[("user", "build")])
    commit(conn, begun(conn, "metadata"), source="metadata", step="documentation")
    commit(conn, begun(conn, "compaction"), source="compact", summary="old", compacted=True)
    commit(conn, begun(conn, "compaction"), source="compact", summary="new", compacted=True)
    said(conn, "question")
    built(conn, version="v2", chat=[("user", "update")])
    lost = {"parent": None, "relation": "fresh", "source": "fallback", "reason": "not_found"}
    said(conn, "after the loss", **lost)
    product_says(conn, "by the product")
    return said(conn, "last")


@pytest.mark.parametrize("steps", [400, 3])
def test_a_main_line_that_never_went_back_is_told_as_it_always_was(
    conn: Connection, steps: int
):
    last = plain_line(conn)  # also one that is longer than is followed
    assert told(conn, last, steps=steps) == as_before(conn)
    assert len(told(conn, last).said) == 6


def test_where_a_line_is_too_long_to_be_followed_no_branch_is_told(conn: Connection):
    first = said(conn, "first")
    said(conn, "beside", beside=first.head, summary="beside", files=["beside"])
    last = [said(conn, f"later {n}") for n in range(3)][-1]
    past = told(conn, last, steps=2)
    assert texts(past) == ["first", "later 0", "later 1", "later 2"]
    assert (past.summary, past.files) == (None, [])


def test_a_session_that_is_gone_on_with_under_its_own_id_has_its_newest_files(
    conn: Connection,
):
    first = said(conn, "first", files=["1"], documentation="1")
    same = {"new": first.head, "relation": "continued"}
    assert told(conn, said(conn, "second", **same)).files == ["1"]
    past = told(conn, said(conn, "third", files=["3"], documentation="3", **same))
    assert (past.files, past.documentation) == (["3"], "3")
    assert texts(past) == ["first", "second", "third"]


@pytest.mark.parametrize("registered", [True, False])
def test_what_the_product_did_before_us_is_told(conn: Connection, registered: bool):
    conn.execute(
        """
        insert into projects (project_id, user_id, last_ai_session_id) values ('p', 'u', 's3');
        insert into session_transitions (project_id, new_session_id, source, reason)
        values ('p', 's3', 'operator', 'adopted')
        """
    )
    for n in (1, 2, 3):
        product_says(conn, f"said {n}", session=f"s{n}")
        if registered:
            conn.execute(
                """
                insert into project_ai_session_metrics (session_id, project_id, user_id, summary)
                values (%s, 'p', 'u', %s)
                """,
                (f"s{n}", f"summary {n}"),
            )
    waiting = begun(conn, "chat_plan")
    assert told(conn, waiting) == as_before(conn)
    last = commit(conn, waiting, source="chat_plan", chat=[("user", "ours")])
    assert told(conn, last) == as_before(conn)
    assert texts(told(conn, last)) == ["said 1", "said 2", "said 3", "ours"]
    assert told(conn, last).summary == ("summary 3" if registered else None)


def imported(conn: Connection, *, head: bool) -> str:
    """A session of before, taken into the project."""
    session = str(uuid4())
    figures = Figures(
        session_id=session,
        began_at=None,
        context_tokens=1,
        raw_cost_usd=0,
        turns=1,
        model=None,
        cli_version=None,
        summary="imported",
    )
    entries: dict[str, list[dict[str, Any]]] = {"": [{"type": "user", "uuid": str(uuid4())}]}

    def fold(_last: Summary | None, _entries: list[dict[str, Any]]) -> Summary:
        return {}

    imports.add_session(conn, "p", figures, entries, user_id="u", head=head, fold=fold)
    return session


def test_a_line_goes_on_from_an_imported_session(conn: Connection):
    imported(conn, head=True)
    last = said(conn, "ours")
    assert (texts(told(conn, last)), told(conn, last).summary) == (["ours"], "imported")


def test_a_session_that_was_imported_beside_is_of_the_branch_that_begins_from_it(
    conn: Connection,
):
    main = said(conn, "main")
    session = imported(conn, head=False)
    branch = said(conn, "beside", beside=session)
    assert told(conn, main).summary is None
    assert told(conn, branch).summary == "imported"
    assert texts(told(conn, said(conn, "more"))) == ["main", "more"]


def test_a_line_that_runs_in_a_circle_is_told_once(conn: Connection):
    first, last = said(conn, "first"), said(conn, "last")
    conn.execute(
        "update project_ai_session_metrics set old_session_id = %s where session_id = %s",
        (last.head, first.head),
    )
    assert texts(told(conn, last)) == ["first", "last"]


LONG_LINES: LiteralString = """
    with line as (
        select p || ' ' || n as session, p, n, now() + n * interval '1 s' as at
          from unnest(array['p', 'q', 'r']) p, generate_series(1, 10000) n
    ), m as (
        insert into project_ai_session_metrics (session_id, project_id, old_session_id, created_at)
        select session, p, p || ' ' || n - 1, at from line
    )
    insert into project_chat_log_minimal (project_id, ai_session_id, role, content, created_at)
    select p, session, 'user', 'said ' || n, at from line"""


@pytest.mark.parametrize("undone", [0, 9700])
def test_of_ten_thousand_sessions_none_is_looked_for_by_reading_all(
    conn: Connection, undone: int
):
    conn.execute(LONG_LINES)
    conn.execute("analyze")
    last = 10000 - undone
    past = chat.past(conn, "p", lane="main", head=f"p {last}", user_id="u")
    assert texts(past) == [f"said {n}" for n in range(last - 19, last + 1)]
    given = {"project": "p", "lane": "main", "head": f"p {last}", "user": "u"}
    given |= {"steps": 400, "messages": 20}
    found = conn.execute("explain (format json) " + chat.PAST, given).fetchone()
    assert found
    read = {
        node["Relation Name"]
        for node in nodes(found[0][0]["Plan"])
        if node["Node Type"] == "Seq Scan"
    }
    assert not read & {"project_ai_session_metrics", "project_chat_log_minimal"}


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


class Lines(RuleBasedStateMachine):
    """Turns, branches, rewinds and promotions as they come, against lists in memory."""

    conn: Connection

    def __init__(self) -> None:
        super().__init__()
        self.project = uuid4().hex
        self.pasts = dict[
            str, list[str]
        ]()  # of each session, what a fresh one after it is told
        self.files = dict[str, list[str]]()
        self.main = list[str]()  # every head of the main line, the newest last
        self.open = dict[str, str]()  # branches with their heads

    @initialize(writes=st.booleans())
    def begin(self, writes: bool) -> None:
        self.main.append(self._turn(None, writes=writes))

    @rule(fresh=st.booleans(), writes=st.booleans())
    def turn(self, fresh: bool, writes: bool) -> None:
        self.main.append(self._turn(self.main[-1], fresh=fresh, writes=writes))

    @rule(n=st.integers(0, 99), writes=st.booleans())
    def beside(self, n: int, writes: bool) -> None:
        """From any session there is: a new branch, or the next turn of one."""
        known = list(self.pasts)
        self._turn(known[n % len(known)], branch=True, writes=writes)

    @rule(n=st.integers(0, 99))
    def rewind(self, n: int) -> None:
        self.main.append(self.main[n % len(self.main)])
        projects.rewind(self.conn, self.project, self.main[-1])

    @precondition(lambda self: bool(self.open))
    @rule(n=st.integers(0, 99))
    def promote(self, n: int) -> None:
        lane = list(self.open)[n % len(self.open)]
        branches.promote(self.conn, self.project, lane, onto=self.main[-1])
        self.main.append(self.open.pop(lane))

    def teardown(self) -> None:
        for lane, head in {"main": self.main[-1], **self.open}.items():
            past = chat.past(
                self.conn, self.project, lane=lane, head=head, user_id="u", messages=99
            )
            assert texts(past) == self.pasts[head]
            assert past.files == self.files[head]
        assert violations(self.conn) == []

    def _turn(
        self, head: str | None, *, writes: bool, branch: bool = False, fresh: bool = False
    ) -> str:
        text = f"said {len(self.pasts)}"
        options = {"branch_from": head} if branch else {}
        job = begun(self.conn, "chat_plan", self.project, options=options)
        assert job.head == head
        begins: dict[str, Any] = {"parent": None, "relation": "fresh", "source": "fallback"}
        done = commit(
            self.conn,
            job,
            chat=[("user", text)],
            files=[text] if writes else None,
            **(begins | {"reason": "lost"} if fresh else {}),
        )
        assert done.head
        self.pasts[done.head] = [*self.pasts.get(head or "", []), text]
        self.files[done.head] = [text] if writes else self.files.get(head or "", [])
        if branch:
            self.open[job.lane] = done.head
        return done.head


def test_whatever_is_done_in_whatever_order_each_line_is_told_its_own_past(conn: Connection):
    class Here(Lines):
        pass

    Here.conn = conn
    run_state_machine_as_test(Here, settings=in_short_runs)
