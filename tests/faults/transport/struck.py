"""A running Baton that is struck: work in plenty for it, blows to its Redis, and what came of it."""

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import redis
from celery import Celery

from dev.stack.processes import Process, look, pids
from dev.stack.server import Server
from tests.acceptance.outside import LONG, Baton
from tests.conftest import keys_without_end
from tests.faults.transport.cheap_worker import CHEAP, RUNS
from tests.invariants import violations
from tests.waiting import wait_until
from worker.broker.queues import QUEUE
from worker.client import Build, ChatPlan, enqueue

WORKER = "celery -A tests.faults.transport.cheap_worker worker --loglevel INFO"
BEAT = "celery -A worker.app beat --loglevel INFO --scheduler celery.beat:Scheduler"
RELAY = "python -m worker.relay"
COMMANDS = {
    "worker": WORKER,
    "beat": BEAT,
    "second-beat": BEAT,
    "relay": RELAY,
    "second-relay": RELAY,
}
BEATS, RELAYS = ("beat", "second-beat"), ("relay", "second-relay")
EVERY = 3.0  # seconds between two ticks of each periodic job

STEPS = {"build": 4, "chat_plan": 1}  # turns of a whole chain: metadata has two
TOP = 1000  # the priority of a job that is to show that jobs are taken


@dataclass
class Struck:
    """One running Baton under blows. Its cheap projects have the scripted agent."""

    baton: Baton
    same_worker: bool = True  # no test of Redis may cost a worker

    @property
    def broker(self) -> Server:
        return self.baton.up.services.embedded[1]

    # --- work ---

    def chats(self, count: int, prompt: str = "go") -> list[UUID]:
        """Jobs of one turn, each of a project of its own, asked for in one transaction."""
        with self.baton.conn.transaction():
            return [
                enqueue(
                    self.baton.conn, ChatPlan(project=self.cheap(), user="ann", prompt=prompt)
                ).id
                for _ in range(count)
            ]

    def builds(self, count: int, prompt: str = "go") -> list[UUID]:
        """Chains of a build, its metadata and its compaction: four turns each."""
        with self.baton.conn.transaction():
            return [
                enqueue(
                    self.baton.conn, Build(project=self.cheap(), user="ann", prompt=prompt)
                ).id
                for _ in range(count)
            ]

    def real_turn(self, seconds: float) -> UUID:
        """A turn of the real CLI that is under way, and takes so long."""
        project = self.baton.project("real")
        prompt = f"sleep {seconds:g}\nsay still here"
        job = self.baton.ask(ChatPlan(project=project, user="ann", prompt=prompt))
        wait_until(
            lambda: self.baton.seen(project),
            timeout=LONG,
            description="the model to be asked",
        )
        return job

    def real_turn_done(self, job: UUID) -> None:
        """Wait for its commit: at the first attempt, and the model was asked once."""
        done = self.baton.until(job, "done")
        assert (done["attempts"], done["result"]["text"]) == (1, "still here")
        assert len(self.baton.seen(done["project_id"])) == 1

    def cheap(self) -> str:
        return self.baton.project(CHEAP.rstrip("-"))

    def open(self, asked: Sequence[UUID], *, only_first: bool = False) -> int:
        """How many jobs of these chains have not ended."""
        return self.baton.row(
            """
            select count(*) as n from jobs
             where chain_id = any(%s) and finished_at is null and (id = chain_id or not %s)
            """,
            list(asked),
            only_first,
        )["n"]

    def ended(self, asked: Sequence[UUID], *, within: float = 90.0) -> None:
        wait_until(
            lambda: not self.open(asked),
            timeout=within,
            description=f"{len(asked)} chains to end; {self.open(asked)} jobs are open",
        )

    def under_way(self, asked: Sequence[UUID], share: float) -> None:
        """Wait until that share of the jobs has ended."""
        wait_until(
            lambda: self.open(asked, only_first=True) <= (1 - share) * len(asked),
            timeout=LONG,
            description=f"{share:.0%} of the chains to be under way",
        )

    def taken(self) -> float:
        """Seconds from now until a job that is asked for now is taken by a worker."""
        with self.baton.conn.transaction():
            ask = ChatPlan(project=self.cheap(), user="ann", prompt="go", priority=TOP)
            probe = enqueue(self.baton.conn, ask).id
        self.baton.over(probe)
        return self.baton.row(
            "select extract(epoch from started_at - created_at)::float as s from jobs where id = %s",
            probe,
        )["s"]

    def stay(self, seconds: float) -> None:
        """Let an outage last."""
        until = time.monotonic() + seconds
        wait_until(
            lambda: time.monotonic() >= until, timeout=seconds + 10, description="the end of it"
        )

    def doctor(self) -> dict[str, tuple[str, str]]:
        """What `baton doctor` finds: state and text by the check's name."""
        found = json.loads(self.baton.cli("--json", "doctor").stdout)["checks"]
        return {one["name"]: (one["state"], one["text"]) for one in found}

    # --- messages ---

    def wake(self, wakes: Sequence[tuple[str, UUID | str]]) -> None:
        """Messages as a relay sends them, for jobs by kind and id."""
        with (
            Celery(broker=self.baton.up.redis_url, set_as_current=False) as app,
            app.producer_pool.acquire() as producer,
        ):
            for kind, job in wakes:
                app.send_task(
                    f"tasks.{kind}",
                    kwargs={"job_id": str(job)},
                    task_id=f"{job}.{time.monotonic_ns()}",
                    queue=QUEUE,
                    producer=producer,
                )

    def idle(self, *, within: float = 60.0) -> None:
        """Wait until no message is in a queue or in a worker's hands."""

        def held() -> int:
            with self.baton.redis(0) as client:
                lengths: Any = [
                    client.llen(QUEUE),
                    client.llen("celery"),
                    client.hlen("unacked"),
                ]
            return sum(lengths)

        wait_until(lambda: not held(), timeout=within, description="every message to be acked")

    # --- blows ---

    def flush(self) -> None:
        with self.baton.redis(0) as client:
            client.flushall()

    def pause(self) -> None:
        os.kill(self._server().pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._server().pid, signal.SIGCONT)
        self.answers()

    def end(self, *, keep_data: bool = True) -> None:
        """Stop Redis; it stays away until `begin`."""
        if keep_data:
            self.broker.stop()
            return
        self.broker.kill()
        shutil.rmtree(self.broker.data)
        self.broker.data.mkdir(mode=0o700)

    def begin(self) -> None:
        """Let the supervisor start Redis again, and wait until it answers."""
        self.broker.wanted = True
        self.answers()

    def answers(self) -> None:
        def pinged() -> bool:
            with suppress(redis.RedisError), self.baton.redis(0) as client:
                return bool(client.ping())
            return False

        wait_until(pinged, timeout=20, description="Redis to answer")

    def _server(self) -> Process:
        server = self.broker.process
        assert server, "Redis runs"
        return server

    # --- what came of it ---

    def wrong(self, asked: Sequence[UUID] = ()) -> list[str]:
        """What is not as it should be: of these chains, of the ledger, of what is left over."""
        return [
            *(line for job in asked for line in self._of_chain(job)),
            *self._doubled(),
            *violations(self.baton.conn, ended=True, stored=True),
            *self.baton.in_step.wrong,
            *self._left_over(),
            *(f"14: key {key} has no end" for key in keys_without_end(self.baton.up.redis_url)),
        ]

    def _of_chain(self, asked: UUID) -> list[str]:
        told = self.baton.row(
            """
            select min(kind) filter (where id = chain_id) as kind,
                   bool_and(state = 'done') as done,
                   sum((select count(*) from turns
                         where job_id = jobs.id and outcome = 'committed'))::int as turns
              from jobs where chain_id = %s
            """,
            asked,
        )
        whole = told["done"] and told["turns"] == STEPS[told["kind"]]
        return [] if whole else [f"chain {asked} came to {told}"]

    def runs(self) -> Counter[str]:
        """How often the cheap agent ran, by project: written by the agent itself."""
        path = self.baton.root / RUNS
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(str(json.loads(line)["project"]) for line in lines)

    def _doubled(self) -> list[str]:
        """Projects whose agent ran more or less often than turns are in the ledger; the agent
        of one that was abandoned may not have come to run."""
        rows = self.baton.rows(
            """
            select project_id, count(*) as most,
                   count(*) filter (where outcome <> 'abandoned') as least
              from turns where project_id like %s group by 1
            """,
            f"{CHEAP}%",
        )
        turns, runs = {row["project_id"]: row for row in rows}, self.runs()
        return [
            f"7: the agent of {project} ran {runs[project]} times for {turns.get(project, 0)} turns"
            for project in turns.keys() | runs.keys()
            if project not in turns
            or not turns[project]["least"] <= runs[project] <= turns[project]["most"]
        ]

    def _left_over(self) -> list[str]:
        """Processes that carry an attempt of ours, when nothing runs."""
        attempts = {str(row["attempt"]) for row in self.baton.rows("select attempt from turns")}
        return [
            f"8: process {pid} still carries attempt {attempt}"
            for pid in pids()
            if (attempt := _attempt(pid)) in attempts and look(pid)
        ]


def _attempt(pid: int) -> str:
    """The attempt that a process carries; empty if it carries none."""
    with suppress(OSError):
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        carried = [one for one in entries if one.startswith(b"BATON_ATTEMPT=")]
        return carried[0].partition(b"=")[2].decode() if carried else ""
    return ""
