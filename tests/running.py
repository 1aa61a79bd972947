"""Jobs run in this process: real Postgres, Redis and CLI, the stand-in as the model.

job = at_work.build("write a.txt: hello")         # its metadata and compaction left out
jobs = at_work.chain(Update(project=P, user=U, prompt="…"))   # with all that follows
assert at_work.model.requests[-1].prompts == ("write a.txt: hello", "…")
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection

from config.settings import settings
from db.core import ledger_settings, pool
from db.jobs import jobs
from db.jobs.jobs import Job
from db.sessions.registry import TEMPLATES
from dev.standin.server import Standin, standin
from tasks.build import do_build
from tasks.chat_plan import do_chat_plan
from tasks.compaction import do_compaction
from tasks.metadata import do_metadata
from tests.conftest import Configure
from tests.direct import direct
from tests.egress import proxy
from tests.machine import BOXES
from worker.agent import Agent
from worker.agent.claude import claude
from worker.app import app
from worker.client import Build, ChatPlan, Update, enqueue
from worker.job.attempt import Attempt
from worker.job.run import Ran, run

P, U = "shop", "ann"
DO: dict[str, Callable[[Attempt], None]] = {
    "build": do_build,
    "metadata": do_metadata,
    "compaction": do_compaction,
    "chat_plan": do_chat_plan,
}


@dataclass
class AtWork:
    """A worker of a kind: it runs jobs here and now, and looks things up."""

    conn: Connection
    model: Standin
    configure: Configure
    agent: Agent = claude

    @property
    def place(self) -> Path:
        """The workspace of the project."""
        return settings().workspaces / P

    def run(self, job_id: UUID, agent: Agent | None = None) -> Ran:
        """Deliver the job."""
        kind = self.job(job_id).kind
        return run(job_id, DO[kind], agent=agent or self.agent)

    def job(self, job_id: UUID) -> Job:
        found = jobs.get(self.conn, job_id)
        assert found
        return found

    def ask(self, request: Any) -> UUID:
        """Ask for it; as an operator if it is of the user of templates."""
        operator = request.user == TEMPLATES
        return enqueue(self.conn, request, operator=operator).id

    def one(self, request: Any, agent: Agent | None = None) -> Job:
        """Run the job that is asked for; what follows in its chain is cancelled."""
        asked = self.ask(request)
        self.run(asked, agent)
        found = self.job(asked)
        if found.ended:
            jobs.cancel(self.conn, asked)
        return found

    def build(self, prompt: str, *, agent: Agent | None = None, **more: Any) -> Job:
        """A build or an update of the project, whichever it is."""
        kind = Update if self.head() else Build
        return self.one(kind(project=P, user=U, prompt=prompt, **more), agent)

    def begin(self, prompt: str) -> Job:
        """The project's first build, without the CLI: what is tested comes after it, and goes on
        from its session."""
        return self.build(prompt, agent=direct(self.model))

    def chat(self, prompt: str, *, agent: Agent | None = None, **more: Any) -> Job:
        return self.one(ChatPlan(project=P, user=U, prompt=prompt, **more), agent)

    def chain(self, request: Any) -> list[Job]:
        """Run the request with all that follows, as long as it does not wait."""
        return self.chain_of(self.ask(request))

    def chain_of(self, asked: UUID) -> list[Job]:
        """Run what is left of a request's chain, as long as it does not wait."""
        while waiting := self._next(asked):
            if self.run(waiting).state in ("waits", "ignored"):
                break
        return jobs.chain(self.conn, asked)

    def _next(self, chain: UUID) -> UUID | None:
        row = self.conn.execute(
            """
            select id from jobs where chain_id = %s and state = 'queued' and run_at <= now()
             order by created_at limit 1
            """,
            (chain,),
        ).fetchone()
        return row[0] if row else None

    def again(self, job_id: UUID, agent: Agent | None = None) -> Job:
        """Let the time of a job that waits come, and run it."""
        self.conn.execute("update jobs set run_at = now() where id = %s", (job_id,))
        self.run(job_id, agent)
        return self.job(job_id)

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self.conn.execute(statement.encode(), values).fetchall()

    def value(self, statement: str, *values: object) -> Any:
        return self.rows(statement, *values)[0][0]

    def head(self) -> str | None:
        found = self.rows("select last_ai_session_id from projects where project_id = %s", P)
        return found[0][0] if found else None

    def turns(self, job_id: UUID) -> list[dict[str, Any]]:
        return jobs.turns(self.conn, job_id)

    def tries(self, job_id: UUID) -> list[tuple[str | None, str, str | None]]:
        """Each candidate that the job looked at: session, outcome, reason."""
        return [
            (each["session_id"], each["outcome"], each["reason"])
            for each in jobs.resume_attempts(self.conn, job_id)
        ]

    def moves(self) -> list[tuple[Any, ...]]:
        """The project's transitions, oldest first: source, reason, old, new, parent."""
        return self.rows(
            """
            select source, reason, old_session_id, new_session_id, parent_session_id
              from session_transitions where project_id = %s order by id
            """,
            P,
        )

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Bodies of the project's events of one type."""
        found = self.rows(
            "select body from events where project_id = %s and type = %s order by seq", P, kind
        )
        return [body for (body,) in found]

    def lose(self, session: str) -> None:
        """Take a session's transcript away, rows and all."""
        for table in ("transcript_sessions", "transcript_batches"):
            self.conn.execute(f"delete from {table} where session_id = %s".encode(), (session,))

    def age(self, session: str, hours: int) -> None:
        """Let a session have been used so long ago."""
        self.conn.execute(
            """
            update project_ai_session_metrics set last_used_at = now() - make_interval(hours => %s)
             where session_id = %s
            """,
            (hours, session),
        )


def _agent(test: pytest.Item, model: Standin) -> Agent:
    """`@pytest.mark.agent("direct")`, on a test or its module: tests/direct.py; else the CLI."""
    wanted = test.get_closest_marker("agent")
    return direct(model) if wanted and wanted.args == ("direct",) else claude


@pytest.fixture
def at_work(
    dsn: str,
    conn: psycopg.Connection,
    redis_url: str,
    configure: Configure,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[AtWork]:
    """Jobs can be run: every service is there, each test with a database of its own."""

    home = tmp_path / "home"
    home.mkdir()
    with standin(scenario="plain", speed=0) as model:
        configure(
            HOME=str(home),  # without a box the agent's shell reads what lies there
            DATABASE_URL=dsn,
            REDIS_URL=redis_url,
            ANTHROPIC_BASE_URL=model.url,
            BATON_CLI_RETRIES="0",
            BATON_CANCEL_POLL="0.1",
            BATON_IDLE_TIMEOUT="120",  # a CLI that hangs fails its test, and no more
            NO_PROXY="127.0.0.1",
            **({} if BOXES else {"BATON_SANDBOX": "off"}),
        )
        app.conf.update(broker_url=redis_url)
        pool.close()
        ledger_settings.tell(conn)  # as a worker does when it starts
        with proxy():
            yield AtWork(conn, model, configure, _agent(request.node, model))
        pool.close()
