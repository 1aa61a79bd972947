"""Any host can resume: what one began another goes on with, on an empty disk (invariant 13)."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from config.settings import settings
from db.transcripts import listings, transcripts
from db.transcripts.form import Entry
from tests.acceptance.hosts import ADDRESSES, Host, hosts
from tests.acceptance.outside import Baton, baton_up, files
from tests.invariants import violations
from tests.machine import NETWORKS, needs_networks
from tests.waiting import wait_until
from worker.client import Build, ChatPlan, Update
from worker.session import ladder

pytestmark = pytest.mark.timeout(600)

ITS_PROMPT = "write sub.txt: from the sub-agent"
DELEGATES = "use Agent " + json.dumps(
    {"description": "d", "prompt": ITS_PROMPT, "subagent_type": "general-purpose"}
)
QUESTION = "what did we do so far?"
HELD = (
    "write b.txt: b\nrun: until test -f ok.txt; do sleep 0.2; done"  # as long as the test likes
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baton]:
    """Postgres, Redis, the relay and the model; no worker."""
    root = tmp_path_factory.mktemp("fleet")
    (root / "remote").mkdir()
    remote = f"file://{root}/remote/{{project}}.git"
    relay = {"relay": "python -m worker.relay"}
    with baton_up(
        root,
        commands=relay,
        BATON_COMPACT="never",
        BATON_SLOTS="2",
        BATON_WORKSPACE_REMOTE=remote,
    ) as baton:
        yield baton


@pytest.fixture
def two(fleet: Baton, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Host]]:
    """Two hosts, in networks of their own where the machine can make them."""
    monkeypatch.setenv("DATABASE_URL", fleet.up.database_url)
    settings.cache_clear()
    with hosts(fleet, "a", "b", apart=NETWORKS) as found:
        yield found
    assert violations(fleet.conn) == []


def done(baton: Baton, ask: Build | Update | ChatPlan) -> str:
    """Ask, wait for the chain's end; the head then."""
    job = baton.ended(baton.ask(ask))
    assert job["state"] == "done", job["error"]
    head = baton.head(ask.project)
    assert head
    return head


def sub_agents(baton: Baton, project: str, session: str) -> dict[str, list[Entry] | None]:
    return {
        one.subpath: transcripts.load(baton.conn, project, session, subpath=one.subpath)
        for one in listings.listed(baton.conn, project, session)
        if one.subpath
    }


def told(agent: str, message: str) -> str:
    given = {"to": agent, "summary": "one more thing", "message": message}
    offered = json.dumps({"query": "select:SendMessage"})
    return f"use ToolSearch {offered}\nuse SendMessage {json.dumps(given)}\nsay told"


@pytest.mark.long
def test_what_one_host_began_another_goes_on_with_on_an_empty_disk(
    fleet: Baton, two: list[Host]
):
    a, b = two
    project = fleet.project()
    with a.works():
        first = done(fleet, Build(project=project, user="ann", prompt=DELEGATES))
        assert fleet.job(fleet.jobs(project)[0]["id"])["host"] == socket.gethostname()
        assert left_behind(a) == []
    agents = sub_agents(fleet, project, first)
    assert len(agents) == 1

    with b.works():
        second = done(fleet, ChatPlan(project=project, user="ann", prompt=QUESTION))
        assert left_behind(b) == []
    seen = fleet.seen_of(project, QUESTION)
    assert seen.prompts[0] == DELEGATES
    assert "from the sub-agent" not in seen.history, "it was resumed, not told of the past"
    assert sub_agents(fleet, project, second) == agents

    (agent,) = (path.removeprefix("subagents/agent-") for path in agents)
    prompt = told(agent, "read sub.txt")
    with a.works():
        third = done(fleet, Update(project=project, user="ann", prompt=prompt))
    assert QUESTION in fleet.seen_of(project, prompt).prompts
    its = [one.prompts for one in fleet.seen(project) if one.prompts[0] == ITS_PROMPT]
    assert any("read sub.txt" in said for said in its[-1]), "the sub-agent was gone on with"
    assert len(sub_agents(fleet, project, third)) == 1

    resumed = {
        outcome for job in fleet.jobs(project) for _, outcome, _ in fleet.tries(job["id"])
    }
    assert resumed == {"fresh", "resumed"}, "fresh once, in the beginning"
    for move in fleet.moves(project):
        found = ladder.look(fleet.conn, project, move["new_session_id"])
        assert (found.reason, bool(found.entries)) == (None, True)


def left_behind(host: Host) -> list[str]:
    """Files of sessions that lie on the host's disk after its turns."""
    kept = [Path(name) for name in files(host.disk)]
    return [str(path) for path in kept if path.suffix == ".jsonl" or "tmp" in path.parts]


@needs_networks
def test_a_host_reaches_nothing_of_another_but_the_services(fleet: Baton):
    with hosts(fleet, "a", "b", apart=True) as (a, b):
        assert a.network
        assert b.network
        for name in ADDRESSES:
            port = urlsplit(fleet.up.env[name]).port
            assert _reaches(a, a.network.outside, port)
            assert not _reaches(a, "127.0.0.1", port)
            assert not _reaches(a, b.network.outside, port)


def _reaches(host: Host, address: str, port: int | None) -> bool:
    assert host.network
    tries = f"import socket; socket.create_connection(({address!r}, {port}), timeout=2)"
    command = host.network.run(sys.executable, "-c", tries)
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def racing(host: Host, project: str) -> list[Path]:
    """The directories of those of a race that are at work on the host."""
    return [b.parent for b in (host.workspaces / ".branches" / project).glob("*/b.txt")]


@pytest.mark.long
def test_of_a_race_over_two_hosts_the_one_that_passes_is_taken(fleet: Baton, two: list[Host]):
    a, b = two
    project = fleet.project("race")
    with a.works(), b.works():
        done(fleet, Build(project=project, user="ann", prompt="write a.txt: a"))
        asked = fleet.ask(
            Update(
                project=project,
                user="ann",
                prompt=HELD,
                check="test -f ok.txt",
                check_tries=0,
                race=3,
            )
        )
        wait_until(
            lambda: (
                sum(map(len, (racing(a, project), racing(b, project)))) == 3
                and racing(a, project)
                and racing(b, project)
            ),
            timeout=240,
            description="all of the race to be at work, on both hosts",
        )
        winner = racing(b, project)[0]
        (winner / "ok.txt").write_text("of this one only\n")
        chain = fleet.ended(asked)
        assert chain["state"] == "done", chain["error"]
        assert chain["result"]["race"]["branch"] == winner.name
        rows = fleet.rows(
            "select state, worker_id from jobs where chain_id = %s and lane <> 'main'", asked
        )
        assert len({row["worker_id"] for row in rows}) == 2, "over both hosts"
        assert sorted(row["state"] for row in rows) == ["cancelled", "cancelled", "done"]
    (branch,) = fleet.rows("select * from branches where project_id = %s", project)
    (promoted,) = [one for one in fleet.moves(project) if one["reason"] == "promoted"]
    assert promoted["new_session_id"] == branch["head"]
    with a.works():  # an empty disk: what was made on the other host comes through the remote
        done(fleet, Update(project=project, user="ann", prompt="write c.txt: c"))
        made = {"a.txt", "b.txt", "ok.txt", "c.txt", "DOCUMENTATION.md"}
        assert files(a.workspaces / project).keys() == made
