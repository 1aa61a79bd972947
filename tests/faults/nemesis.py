"""The nemesis: strikes at random parts of a running Baton, by a schedule that a seed draws.

The schedule (what, after how long, for how long, and a number to choose a victim by) comes
from the seed alone; which process is the victim depends on who lives at that moment.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
import redis
from celery import Celery

from dev.stack.processes import Process, alive, descendants, look
from dev.stack.up import Stack
from tests.faults.agents import children, live_agents
from worker.broker.queues import QUEUE

GAP = 0.9  # seconds between two strikes, in the mean
LONGEST_STOP = 7.0  # seconds of a SIGSTOP: past the lease
WEIGHTS = {
    "kill child": 4,
    "kill agent": 3,
    "kill keeper": 2,
    "kill worker": 2,
    "kill relay": 2,
    "kill beat": 1,
    "stop child": 3,
    "stop agent": 1,
    "stop keeper": 1,
    "stop worker": 1,
    "stop relay": 1,
    "deploy": 2,
    "wipe redis": 2,
    "restart redis": 1,
    "cut postgres": 2,
    "restart postgres": 1,
    "deliver again": 4,
    "cancel": 3,
}


@dataclass(frozen=True, slots=True)
class Strike:
    """What happens, how long after the strike before, for how long, and to whom."""

    what: str
    after: float
    lasts: float
    chooses: float  # from 0 to 1: which of the victims

    def __str__(self) -> str:
        return f"{self.what} after {self.after:.2f} s"


def schedule(seed: int, seconds: float) -> list[Strike]:
    """The strikes of so many seconds; the same for the same seed."""
    draw, strikes, at = random.Random(seed), list[Strike](), 0.0
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    while at < seconds:
        after = draw.expovariate(1 / GAP)
        lasts = draw.uniform(0.3, LONGEST_STOP)
        (what,) = draw.choices(names, weights)
        strikes.append(Strike(what, after, lasts, draw.random()))
        at += after
    return strikes


@dataclass
class Nemesis:
    """Carries a schedule out. `cancel` is given the victim's choice, and asks for a cancel."""

    up: Stack
    cancel: Callable[[float], None]
    struck: list[str] = field(default_factory=list[str])
    stopped: list[tuple[float, Process]] = field(default_factory=list[tuple[float, Process]])

    def strike(self, one: Strike) -> None:
        """Do it; what is not there is not struck."""
        how, _, whom = one.what.partition(" ")
        match how, whom:
            case "kill" | "stop", _:
                self._signal(one, how, whom)
            case "deploy", _:
                self._send(self._leader("worker"), signal.SIGTERM)
            case "wipe", _:
                with suppress(redis.RedisError), redis.Redis.from_url(self.up.redis_url) as r:
                    r.flushall()
            case "restart", _:
                self._restart("Redis" if whom == "redis" else "Postgres")
            case "cut", _:
                self._cut()
            case "deliver", _:
                self._deliver_again(one.chooses)
            case _:
                self.cancel(one.chooses)
        self.struck.append(one.what)

    def let_go(self, *, all_of_them: bool = False) -> None:
        """Continue what has been stopped for long enough."""
        for until, process in list(self.stopped):
            if all_of_them or time.monotonic() >= until:
                self.stopped.remove((until, process))
                self._send([process], signal.SIGCONT)

    def _signal(self, one: Strike, how: str, whom: str) -> None:
        victims = self._victims(whom)
        if not victims:
            return
        victim = victims[int(one.chooses * len(victims))]
        self._send([victim], signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        if how == "stop":
            self.stopped.append((time.monotonic() + one.lasts, victim))

    def _victims(self, whom: str) -> list[Process]:
        match whom:
            case "child":
                return self._children()
            case "agent" | "keeper":
                mine = {one.pid for child in self._children() for one in descendants(child.pid)}
                found = live_agents(keepers=whom == "keeper")
                return list(filter(None, (look(pid) for _, pid in found if pid in mine)))
            case _:
                return self._leader(whom)

    def _leader(self, name: str) -> list[Process]:
        return list(filter(None, [self.up.supervisor.children[name].process]))

    def _children(self) -> list[Process]:
        return [one for leader in self._leader("worker") for one in children(leader.pid)]

    def _send(self, victims: Iterable[Process], number: signal.Signals) -> None:
        for victim in victims:
            if alive(victim):
                with suppress(ProcessLookupError):
                    os.kill(victim.pid, number)

    def _restart(self, name: str) -> None:
        """The server crashes; the supervisor starts it again. Postgres: as `stop -m immediate`."""
        for server in self.up.services.embedded:
            if server.name == name and (process := server.process):
                how = signal.SIGQUIT if name == "Postgres" else signal.SIGKILL
                self._send([process], how)

    def _cut(self) -> None:
        with (
            suppress(psycopg.Error),
            psycopg.connect(self.up.database_url, autocommit=True, connect_timeout=2) as conn,
        ):
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where pid <> pg_backend_pid() and backend_type = 'client backend'"
            )

    def _deliver_again(self, chooses: float) -> None:
        """Messages for a job, whatever has become of it, and one for none at all."""
        with (
            suppress(psycopg.Error),
            psycopg.connect(self.up.database_url, connect_timeout=2) as conn,
        ):
            rows = conn.execute(
                "select id::text, kind from jobs order by created_at"
            ).fetchall()
            if rows:
                job, kind = rows[int(chooses * len(rows))]
                self._send_task(kind, job)

    def _send_task(self, kind: str, job: str) -> None:
        with suppress(Exception), Celery(broker=self.up.redis_url, set_as_current=False) as app:
            for number in range(900, 905):
                app.send_task(
                    f"tasks.{kind}",
                    kwargs={"job_id": job},
                    task_id=f"{job}.{number}",
                    queue=QUEUE,
                    retry=False,
                )
