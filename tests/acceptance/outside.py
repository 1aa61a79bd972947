"""A running Baton as those around it see it: tables, Redis, files, Flower, the CLI, the model.

Nothing here reaches into a process of the product. What is asked for goes through
`worker.client`, SQL, a Celery message or the command line; what came of it is read where
a product team would look for it.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString, cast
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
import redis
from celery import Celery
from psycopg import sql
from psycopg.rows import dict_row

from config.settings import settings
from db.transcripts import transcripts
from db.transcripts.form import Entry
from dev.stack.processes import Process, alive, carrying, free_port
from dev.stack.up import Stack, stack
from dev.standin.model import Seen
from dev.standin.server import Standin, standin
from tests.acceptance.in_step import InStep
from tests.waiting import wait_until
from worker.client import Build, ChatPlan, Compaction, Metadata, Repair, Update, enqueue

EGRESS = "python -m egress"
LONG = 45.0  # seconds a chain may take on a busy machine
ENDED = ("done", "failed", "cancelled", "quarantined")

Row = dict[str, Any]
Ask = Build | Update | Repair | ChatPlan | Metadata | Compaction


@dataclass
class Baton:
    """One running Baton, its model, and where to look."""

    up: Stack
    model: Standin
    conn: psycopg.Connection
    in_step: InStep
    root: Path

    # --- what is asked for ---

    def project(self, name: str = "p") -> str:
        """An id that nobody has used."""
        return f"{name}-{uuid4().hex[:8]}"

    def ask(self, ask: Ask, *, operator: bool = False) -> UUID:
        """Ask as a producer on the workers' host does; raises Refused."""
        with pytest.MonkeyPatch.context() as env:
            env.setenv("BATON_WORKSPACES", str(self.root / "workspaces"))
            settings.cache_clear()
            return enqueue(self.conn, ask, operator=operator).id

    def chat(self, project: str, prompt: str, *, user: str = "ann", **more: Any) -> Row:
        """Ask a question and wait for the end: the shortest job there is."""
        return self.ended(self.ask(ChatPlan(project=project, user=user, prompt=prompt, **more)))

    def send(self, name: str, *, task_id: str | None = None, **kwargs: Any) -> str:
        """A message of a plain Celery producer; returns the task's id."""
        url = self.up.services.plain_broker_url or self.up.redis_url
        with Celery(broker=url, set_as_current=False) as app:
            return str(app.send_task(name, kwargs=kwargs, task_id=task_id).id)

    def revoke(self, task_id: str, **more: Any) -> None:
        with Celery(broker=self.up.redis_url, set_as_current=False) as app:
            app.control.revoke(task_id, **more)

    def remembers(self, task_id: str) -> bool:
        """Whether it is written down that the task was revoked."""
        return bool(self.rows("select 1 from revoked_tasks where job_id = %s", UUID(task_id)))

    def refused(self, task_id: str) -> Row | None:
        """What is written down of a message that was refused."""
        found = self.rows("select * from refused_messages where task_id = %s", task_id)
        return found[0] if found else None

    def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`baton …` in another process, as in the checkout that the stack runs in."""
        env = {**self.up.env, "BATON_LOG_LEVEL": "info"}
        return subprocess.run(
            [sys.executable, "-m", "dev.cli", *arguments],
            cwd=self.root,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def cli_json(self, *arguments: str) -> Any:
        """The document that `baton --json …` prints."""
        done = self.cli("--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    # --- what came of it ---

    def rows(self, query: LiteralString, *values: object) -> list[Row]:
        with self.conn.cursor(row_factory=dict_row) as cur:
            return cur.execute(query, values).fetchall()

    def row(self, query: LiteralString, *values: object) -> Row:
        (one,) = self.rows(query, *values)
        return one

    def job(self, job_id: UUID) -> Row:
        return self.row("select * from jobs where id = %s", job_id)

    def jobs(self, project: str) -> list[Row]:
        """The project's jobs in the order in which they began."""
        return self.rows(
            "select * from jobs where project_id = %s order by started_at, created_at", project
        )

    def over(self, job_id: UUID) -> Row:
        """The job, once it has ended; its chain may go on."""
        return self.until(job_id, *ENDED)

    def ended(self, job_id: UUID, *, meanwhile: Callable[[], object] = lambda: None) -> Row:
        """The job, once its whole chain has ended."""

        def all_ended() -> bool:
            meanwhile()
            return not self.rows(
                """
                select 1 from jobs where finished_at is null
                   and chain_id = (select chain_id from jobs where id = %s)
                """,
                job_id,
            )

        wait_until(all_ended, timeout=LONG, description=f"the chain of {self.told(job_id)}")
        return self.job(job_id)

    def until(self, job_id: UUID, *states: str) -> Row:
        """The job, once it is in one of these states."""
        wait_until(
            lambda: self.job(job_id)["state"] in states,
            timeout=LONG,
            description=f"{self.told(job_id)} to be {' or '.join(states)}",
        )
        return self.job(job_id)

    def told(self, job_id: UUID) -> str:
        job = self.job(job_id)
        return f"{job['kind']} {job_id} ({job['state']}: {job['error']})"

    def head(self, project: str) -> str | None:
        return self.row(
            "select last_ai_session_id as head from projects where project_id = %s", project
        )["head"]

    def moves(self, project: str) -> list[Row]:
        """The project's transitions, the oldest first."""
        return self.rows(
            "select * from session_transitions where project_id = %s order by id", project
        )

    def events(self, project: str, *types: str) -> list[Row]:
        found = self.rows("select * from events where project_id = %s order by seq", project)
        return [one for one in found if not types or one["type"] in types]

    def tries(self, job_id: UUID) -> list[tuple[str | None, str, str | None]]:
        """Which sessions the job looked at: id, outcome, reason."""
        found = self.rows(
            "select * from session_resume_attempts where job_id = %s order by id", job_id
        )
        return [(one["session_id"], one["outcome"], one["reason"]) for one in found]

    def seen(self, project: str) -> list[Seen]:
        """What the model was asked in the project's workspace, its own small questions left out."""
        return [
            one
            for one in self.model.requests
            if Path(one.cwd).name == project and one.kind != "side"
        ]

    def seen_of(self, project: str, prompt: str) -> Seen:
        """The first request with that very prompt."""
        return next(one for one in self.seen(project) if one.prompt == prompt)

    def workspace(self, project: str) -> Path:
        return self.root / "workspaces" / project

    def redis(self, database: int) -> "redis.Redis":
        url = self.up.redis_url.rpartition("/")[0]
        return redis.Redis.from_url(f"{url}/{database}", decode_responses=True)

    def unread(self) -> int:
        """How many messages are in the plain producers' queue or with a worker."""
        with self.redis(0) as client:
            counted: Any = [client.llen("celery"), client.hlen("unacked")]
        return sum(counted)

    def stream(self, project: str) -> list[tuple[str, dict[str, str]]]:
        """The copy of the project's events in Redis: id and fields."""
        with self.redis(2) as client:
            return cast(list[tuple[str, dict[str, str]]], client.xrange(f"events:{project}"))

    def flower(self, page: str) -> httpx.Response:
        """A page of Flower's, as an operator who has its password sees it."""
        return httpx.get(f"{self.up.flower_url}/{page}", trust_env=False, timeout=20)

    def task(self, task_id: str) -> Row | None:
        """What Flower knows of a task; None when it has not heard of it."""
        answer = self.flower(f"api/task/info/{task_id}")
        return None if answer.status_code == 404 else answer.raise_for_status().json()

    def task_in(self, task_id: str, *states: str) -> Row:
        """What Flower shows of a task, once it is in one of these states."""

        def shown() -> Row | None:
            found = self.task(task_id)
            return found if found and found["state"] in states else None

        try:
            return wait_until(shown, timeout=15, description=" or ".join(states)) or {}
        except AssertionError as exc:
            raise AssertionError(f"{exc}, but Flower shows {self.task(task_id)}") from exc

    def agents(self, job_id: UUID) -> list[Process]:
        """The live processes that carry the job's newest attempt."""
        return carrying("BATON_ATTEMPT", str(self.job(job_id)["attempt"]))

    def turns(self, project: str, prompt: str) -> int:
        """How many turns the model was asked to begin with that prompt; each has its session."""
        return len({one.session for one in self.seen(project) if one.prompt == prompt})

    def at_work(self, job_id: UUID, program: str) -> list[Process]:
        """The job's processes, once the agent runs that program for it and the call is in
        the store, where it comes up to 0.1 s later: a death before then loses it."""

        def found() -> list[Process]:
            carried = self.agents(job_id)
            runs = any(_name(one) == program for one in carried)
            return carried if runs and _called(program, self._newest(job_id)) else []

        return wait_until(
            found, timeout=LONG, description=f"{program} to run for {self.told(job_id)}"
        )

    def _newest(self, job_id: UUID) -> list[Entry]:
        """What the store holds of the job's newest turn."""
        turns = self.rows("select * from turns where job_id = %s order by id", job_id)
        if not turns:
            return []
        session = str(turns[-1]["minted_session_id"])
        return transcripts.load(self.conn, turns[-1]["project_id"], session) or []

    def gone(self, processes: list[Process]) -> None:
        wait_until(
            lambda: not any(alive(one) for one in processes),
            timeout=15,
            description="the agent's processes to be gone",
        )

    def lose(self, session_id: str | None) -> None:
        """Delete what is there of a session's transcript, as a careless operator would."""
        tables = self.rows(
            """
            select table_name from information_schema.columns
             where table_schema = 'public' and column_name = 'session_id'
               and table_name like 'transcript%%'
            """
        )
        assert tables
        for table in tables:
            query = sql.SQL("delete from {} where session_id = %s").format(
                sql.Identifier(table["table_name"])
            )
            self.conn.execute(query, (session_id,))


@contextmanager
def baton_up(
    root: Path,
    *,
    commands: Mapping[str, str] | None = None,
    looks: str | None = None,
    **env: str,
) -> Generator[Baton]:
    """Baton with the Procfile's processes and the stand-in's scenario `plain`, without pauses.

    To `commands` comes the proxy, without which no agent asks its model. `looks`: the URL by which
    the test asks and looks, where that is not the processes'."""
    with ExitStack() as stays:
        model = stays.enter_context(standin("plain", speed=0))
        given = {
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "stand-in",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "BATON_WORKSPACES": str(root / "workspaces"),
            "BATON_AGENT_HOME": str(root / "agent"),
            "BATON_CLI_RETRIES": "1",  # two faults, one failed turn
            "BATON_BACKOFF_FIRST": "0.2",
            "BATON_ATTEMPTS": "3",
            "BATON_LEASE": "6",
            "BATON_RENEW_EVERY": "0.5",
            "BATON_CANCEL_POLL": "0.2",
            **env,
        }
        commands = commands and {"egress": EGRESS, **commands}
        with chdir(root), pytest.MonkeyPatch.context() as here:
            # Stacks that start at the same moment would all find the usual port free.
            here.setattr("dev.stack.up.FLOWER_PORT", free_port())
            settings.cache_clear()  # no `.env` of the checkout is read
            up = stays.enter_context(stack(root, given, commands=commands))
        looks = looks or up.database_url
        conn = stays.enter_context(psycopg.connect(looks, autocommit=True))
        in_step = InStep(looks)
        watcher = threading.Thread(target=in_step.watch, daemon=True)
        watcher.start()
        try:
            yield Baton(up, model, conn, in_step, root)
        finally:
            in_step.done.set()
            watcher.join()


def _name(process: Process) -> str:
    try:
        return Path(f"/proc/{process.pid}/comm").read_text().strip()
    except OSError:
        return ""  # it has just ended


def _called(program: str, entries: list[Entry]) -> bool:
    """Whether the agent's last call is one of that program."""
    calls = [text for one in entries if '"tool_use"' in (text := json.dumps(one))]
    return bool(calls) and program in calls[-1]


def files(directory: Path) -> dict[str, bytes]:
    """Every file below the directory with what is in it."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def is_sentence(text: str) -> bool:
    """One sentence for people: a capital, a full stop, no traceback, no session id."""
    return (
        text[:1].isupper()
        and text.rstrip().endswith(".")
        and "\n" not in text.strip()
        and "Traceback" not in text
    )
