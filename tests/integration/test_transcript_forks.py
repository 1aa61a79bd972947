"""Forks of transcripts: sub-agents are carried over, and whatever is done in whatever order,
what is loaded is what was appended."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from psycopg import Connection

from db.transcripts import listings, transcripts
from db.transcripts.forks import carry
from db.transcripts.transcripts import TranscriptDamaged
from tests.integration.test_transcripts import append, count, entry, exactly, forked, said

in_short_runs = settings(
    max_examples=30,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

P, AGENT = "project", "subagents/agent-1"
Entry = dict[str, Any]


def carried(conn: Connection, parent: str, child: str) -> int:
    with conn.transaction():
        return carry(conn, P, parent=parent, child=child)


def agent(conn: Connection, session: str, subpath: str = AGENT) -> list[Entry] | None:
    return transcripts.load(conn, P, session, subpath=subpath)


def test_what_is_carried_over_is_loaded_as_from_the_parent(conn: Connection):
    append(conn, "parent", said("parent", 2))
    batches = [said("a", 3), [{"type": "agent_metadata", "n": 1.0}], said("b", 1)]
    for batch in batches:
        append(conn, "parent", batch, subpath=AGENT)
    append(conn, "parent", said("other", 2), subpath="subagents/agent-2")
    bodies = count(conn, "transcript_entries")

    assert carried(conn, "parent", "child") == 2

    assert exactly(agent(conn, "child")) == exactly([one for batch in batches for one in batch])
    assert agent(conn, "child", "subagents/agent-2") == said("other", 2)
    assert count(conn, "transcript_entries") == bodies
    assert transcripts.load(conn, P, "child") is None  # its own history is the CLI's to copy


def test_carrying_over_once_more_changes_nothing(conn: Connection):
    append(conn, "parent", said("a", 3), subpath=AGENT)
    carried(conn, "parent", "child")
    append(conn, "child", said("new", 1), subpath=AGENT)
    assert carried(conn, "parent", "child") == 0
    assert agent(conn, "child") == [*said("a", 3), *said("new", 1)]


def test_a_fork_of_a_fork_costs_a_row_for_each_sub_agent(conn: Connection):
    for n in range(20):
        append(conn, "s0", said(f"turn {n}", 2), subpath=AGENT)
    for n in range(10):
        carried(conn, f"s{n}", f"s{n + 1}")
    assert count(conn, "transcript_batches") == 20 + 10
    assert agent(conn, "s10") == agent(conn, "s0")


def test_nothing_is_carried_over_from_another_project(conn: Connection):
    append(conn, "parent", said("secret", 3), subpath=AGENT, project="another")
    assert carried(conn, "parent", "child") == 0
    assert agent(conn, "child") is None


def copied(conn: Connection, child: str, *, of: str = "another") -> int:
    with conn.transaction():
        return carry(conn, P, parent="parent", child=child, of=of)


def test_from_another_project_that_is_named_sub_agents_are_copied(conn: Connection):
    theirs = {"project": "another"}
    for n in range(3):
        append(conn, "parent", said(f"turn {n}", 2), subpath=AGENT, **theirs)
    append(conn, "parent", said("other", 2), subpath="subagents/agent-2", **theirs)
    append(conn, "parent", said("its own history", 2), **theirs)
    whole = transcripts.load(conn, "another", "parent", subpath=AGENT)

    assert copied(conn, "child") == 2
    append(conn, "child", said("new", 1), subpath=AGENT)
    assert copied(conn, "child") == 0

    with conn.transaction():
        listings.delete(conn, "another", "parent")
        listings.sweep_entries(conn, "another")
    assert whole
    assert exactly(agent(conn, "child")) == exactly([*whole, *said("new", 1)])
    assert agent(conn, "child", "subagents/agent-2") == said("other", 2)
    assert transcripts.load(conn, P, "child") is None


def test_what_is_damaged_in_another_project_is_not_copied(conn: Connection):
    for subpath in ("subagents/agent-0", AGENT):
        for n in range(2):
            append(
                conn, "parent", said(f"{subpath} {n}", 1), subpath=subpath, project="another"
            )
    conn.execute(
        "delete from transcript_batches where id = (select max(id) from transcript_batches)"
    )
    assert copied(conn, "child") == 1
    assert agent(conn, "child") is None
    assert agent(conn, "child", "subagents/agent-0")


def test_what_is_damaged_is_damaged_in_the_fork_too(conn: Connection):
    append(conn, "parent", said("a", 3), subpath=AGENT)
    append(conn, "parent", said("b", 3), subpath=AGENT)
    conn.execute(
        "delete from transcript_batches where id = (select max(id) from transcript_batches)"
    )
    carried(conn, "parent", "child")
    with pytest.raises(TranscriptDamaged):
        agent(conn, "child")


def test_forks_made_at_once_while_the_parent_is_pruned_are_each_whole_or_without(
    conn: Connection, dsn: str
):
    for n in range(5):
        append(conn, "parent", said(f"turn {n}", 20), subpath=AGENT)
    whole, together = agent(conn, "parent"), threading.Barrier(7)

    def fork(child: str) -> int:
        with psycopg.connect(dsn, autocommit=True) as own:
            together.wait(10)
            return carried(own, "parent", child)

    def prune() -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            together.wait(10)
            with own.transaction():
                listings.delete(own, P, "parent")
                listings.sweep_entries(own, P)

    with ThreadPoolExecutor(7) as threads:
        pruned = threads.submit(prune)
        forks = {f"child {n % 3}": threads.submit(fork, f"child {n % 3}") for n in range(6)}
    pruned.result()
    for child in forks:
        assert agent(conn, child) in (whole, None)


class AnyOrder(RuleBasedStateMachine):
    """Appends, forks, prunings and sweeps as they come, against lists in memory."""

    names = st.integers(0, 4).map("s{}".format)

    conn: Connection

    def __init__(self) -> None:
        super().__init__()
        self.project = uuid4().hex
        self.known = dict[tuple[str, str], list[Entry]]()

    @rule(name=names, subpath=st.sampled_from(["", AGENT]), new=st.lists(entry, max_size=3))
    def append(self, name: str, subpath: str, new: list[Entry]) -> None:
        append(self.conn, name, new, project=self.project, subpath=subpath)
        self._expect(name, subpath, new)

    @rule(parent=names, child=names, new=st.lists(entry, max_size=2))
    def fork(self, parent: str, child: str, new: list[Entry]) -> None:
        """As the CLI forks: its own history in one append; and what we do about the rest."""
        written = [*forked(self.known.get((parent, ""), []), child), *new]
        if parent == child:
            return
        append(self.conn, child, written, project=self.project)
        with self.conn.transaction():
            carry(self.conn, self.project, parent=parent, child=child)
        self._expect(child, "", written)
        for (name, subpath), entries in list(self.known.items()):
            if name == parent and subpath:
                self.known.setdefault((child, subpath), list(entries))

    @rule(name=names)
    def prune(self, name: str) -> None:
        with self.conn.transaction():
            listings.delete(self.conn, self.project, name)
        self.known = {key: value for key, value in self.known.items() if key[0] != name}

    @rule(limit=st.integers(1, 50))
    def sweep(self, limit: int) -> None:
        with self.conn.transaction():
            listings.sweep_entries(self.conn, self.project, limit=limit)

    def teardown(self) -> None:
        stored = listings.listed(self.conn, self.project)
        assert {(one.session_id, one.subpath) for one in stored} == set(self.known)
        for (name, subpath), entries in self.known.items():
            loaded = transcripts.load(self.conn, self.project, name, subpath=subpath)
            assert exactly(loaded) == exactly(entries)

    def _expect(self, name: str, subpath: str, new: list[Entry]) -> None:
        held = self.known.get((name, subpath), [])
        for one in new:
            if one.get("uuid") is None or one["uuid"] not in [e.get("uuid") for e in held]:
                held = [*held, one]
        if held:
            self.known[name, subpath] = held


def test_in_whatever_order_what_is_loaded_is_what_was_appended(conn: Connection):
    class Here(AnyOrder):
        pass

    Here.conn = conn
    run_state_machine_as_test(Here, settings=in_short_runs)
