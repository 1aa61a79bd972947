"""What the rules of the histories are made of: asking, running, writing late, coming to an end."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID, uuid4

from hypothesis.stateful import RuleBasedStateMachine

from db.jobs.attempts import Claimed, Runner
from tests.faults.clock import Clock, moment
from tests.faults.compared import Ledger
from tests.faults.ledger_rows import FOREVER, user_of
from tests.invariants import violations
from worker import client
from worker.client import Build, ChatPlan, Compaction, Metadata, Refused, Update

ASKS: dict[str, Callable[..., Any]] = {
    "build": Build,
    "update": Update,
    "chat_plan": ChatPlan,
    "metadata": Metadata,
    "compaction": Compaction,
}
CREDENTIALS = ("one", "another")
RACERS = 2
LEAPS = (1, 5, 29, 30, 31, 90)  # seconds that pass; a lease is 30

T = TypeVar("T")


@dataclass
class Run:
    """One attempt as its worker knows it: it may write long after it was replaced."""

    job: Claimed
    minted: str = ""
    step: str = ""


class Hands(RuleBasedStateMachine):
    """One history: the ledger beside its model, and every attempt that was ever made."""

    def __init__(self, clock: Clock, ended: Callable[[Ledger], None]) -> None:
        """`ended` is told of each history that came to its end."""
        super().__init__()
        clock.begin_anew()
        self.ledger, self.ended = Ledger(clock), ended
        self.runs = list[Run]()
        self.races = list[UUID]()

    def job(self, back: int) -> UUID:
        asked = list(self.ledger.model.jobs)
        return asked[-1 - min(back, len(asked) - 1)]

    def has_jobs(self) -> bool:
        return bool(self.ledger.model.jobs)

    def has_runs(self) -> bool:
        return bool(self.runs)

    def enqueue(
        self,
        kind: str,
        *,
        project: str,
        prompt: str,
        busy: str = "enqueue",
        key: str | None = None,
        run_at: float | None = None,
        priority: int = 0,
        race: bool = False,
    ) -> None:
        given = prompt if kind in ("build", "update", "chat_plan") else None
        race = race and kind in ("build", "update")
        more: dict[str, Any] = {"check": "make test", "race": RACERS} if race else {}
        request = ASKS[kind](
            project=project,
            user=user_of(project),
            prompt=given,
            busy=busy,
            key=key,
            priority=priority,
            run_at=None if run_at is None else moment(run_at),
            **more,
        )
        job_id, body = uuid4(), (kind, given, busy, race)

        def send() -> UUID | None:
            try:
                return client.enqueue(self.ledger.conn, request, job_id=job_id).id
            except Refused:
                return None

        taken = self.ledger.enqueue(
            project,
            kind,
            job_id=job_id,
            send=send,
            busy=busy,
            run_at=run_at,
            key=key,
            body=body,
            race=race,
        )
        if race and taken and taken not in self.races:
            self.races.append(taken)

    def open_race(self, project: str) -> UUID | None:
        jobs = self.ledger.model.jobs
        mine = (jobs[one] for one in self.races if jobs[one].project == project)
        return next((job.id for job in mine if job.open), None)

    def begin_run(self, job_id: UUID, credential: str) -> bool:
        runner = Runner(f"worker of {credential}", "host", "boot", 4711, 99, credential)
        if job := self.ledger.claim(job_id, uuid4(), runner):
            self.runs.append(Run(job))
        return job is not None

    def run(self, back: int) -> Run:
        return self.runs[-1 - min(back, len(self.runs) - 1)]

    def begin(self, run: Run, *, own: bool) -> None:
        """A turn for the job's one step, or for a step of its own; one at a time."""
        held = self.ledger.model.held(run.job.id, run.job.attempt)
        if held and any(turn.outcome == "running" for turn in held.turns.values()):
            return
        step, minted = f"step:{uuid4()}" if own else run.job.kind, str(uuid4())
        if self.write(run, lambda: self.ledger.begin(run.job, step=step, minted=minted)):
            run.minted, run.step = minted, step

    def write(self, run: Run, write: Callable[[], T]) -> T:
        """A write that the ledger refuses leaves nothing behind."""
        if self.ledger.model.held(run.job.id, run.job.attempt):
            return write()
        before = self.ledger.clock.contents()
        told = write()
        assert self.ledger.clock.contents() == before, "a replaced attempt has written"
        return told

    def prove(self, run: Run, *, passed: bool) -> None:
        """One command more, in the round that the job's repairs have come to."""
        at = len(self.ledger.model.jobs[run.job.id].checks), 1
        self.write(run, lambda: self.ledger.record(run.job, at, passed=passed))

    def go_on_racing(self, run: Run) -> None:
        """What the race is next to do: begin, stop the others and wait, or take one that has passed."""
        found = self.ledger.racers(run.job)
        best = next((one for one in found if one.passed and one.head), None)
        if not found:
            ids = [uuid4() for _ in range(RACERS)]
            self.write(run, lambda: self.ledger.begin_race(run.job, ids))
        elif best and all(one.ended for one in found):
            self.write(run, lambda: self.ledger.promote(run.job, best))
            return
        elif best:
            self.write(run, lambda: self.ledger.stop_race(run.job))
        self.write(run, lambda: self.ledger.wait_for_race(run.job))

    def rescue_the_expired(self) -> None:
        for job_id in self.ledger.expired():
            assert self.ledger.rescue(job_id)

    def teardown(self) -> None:
        """Let everything come to an end: nothing waits for ever."""
        if sys.exc_info()[0]:
            return  # it has failed already
        for _ in range(4 * len(self.ledger.model.jobs)):
            if not any(job.open for job in self.ledger.model.jobs.values()):
                break
            self.ledger.tick(LEAPS[-1])
            for credential, until in list(self.ledger.model.limits.items()):
                if until == FOREVER:
                    self.ledger.clear(credential)
            self.rescue_the_expired()
            for job in [*self.ledger.model.jobs.values()]:
                self.end(job.id)
        self.ledger.compare()
        while self.ledger.tell_ends():
            pass
        assert not (wrong := violations(self.ledger.conn, ended=True)), wrong
        self.ended(self.ledger)

    def end(self, job_id: UUID) -> None:
        """Run the job to its end, if it is its turn."""
        if not self.ledger.model.claimable(self.ledger.model.jobs[job_id]):
            return
        runner = Runner("worker", "host", "boot", 4711, 99, CREDENTIALS[0])
        if job := self.ledger.claim(job_id, uuid4(), runner):
            step, minted = f"end:{job.attempt}", str(uuid4())
            assert self.ledger.begin(job, step=step, minted=minted)
            moved = self.ledger.advance(job, step=step, minted=minted)
            assert moved is not None or self.ledger.model.jobs[job_id].cancel
