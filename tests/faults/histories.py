"""Histories that Hypothesis makes up: all that may be done to the ledger, in any order.

Requests, attempts, deaths, late writes, limits and operators, on a real Postgres with a
clock of ours. After each step the ledger and its model are the same, whose turn it is
included; in the end everything can be brought to an end, and the invariants hold.
"""

from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from tests.faults.hands import ASKS, CREDENTIALS, LEAPS, Hands

PROJECTS = ("p", "q")
RECENT = st.sampled_from((0, 0, 0, 0, 1, 1, 2, 3, 5))  # counted from the newest


class Histories(Hands):
    """What may be done to the ledger. Few rules, so that each has its turn often."""

    # Asking

    @initialize(kind=st.sampled_from(("build", "chat_plan")))
    def ask_first(self, kind: str) -> None:
        self.enqueue(kind, project="p", prompt="make it")

    @rule(
        kind=st.sampled_from(sorted(ASKS)),
        project=st.sampled_from(("p", *PROJECTS)),
        busy=st.sampled_from(("enqueue", "enqueue", "reject", "replace", "interrupt")),
        key=st.sampled_from((None, None, "k", "l")),
        prompt=st.sampled_from(("make it", "mend it")),
        priority=st.integers(-1, 1),
        ahead=st.sampled_from((None, None, 20)),
        race=st.sampled_from((False, False, True)),
    )
    def ask(self, kind: str, ahead: int | None, **asked: Any) -> None:
        run_at = None if ahead is None else self.ledger.now + ahead
        self.enqueue(kind, run_at=run_at, **asked)

    @precondition(Hands.has_jobs)
    @rule(back=RECENT, cancel=st.booleans())
    def cancel_or_retry(self, back: int, cancel: bool) -> None:
        (self.ledger.cancel if cancel else self.ledger.again)(self.job(back))

    # Running, in time or late

    @precondition(Hands.has_jobs)
    @rule(back=RECENT, credential=st.sampled_from(CREDENTIALS))
    def claim(self, back: int, credential: str) -> None:
        self.begin_run(self.job(back), credential)

    @rule(credential=st.sampled_from(CREDENTIALS), begins=st.booleans())
    def claim_the_next(self, credential: str, begins: bool) -> None:
        """Claim whatever may be claimed, and perhaps begin its turn."""
        model = self.ledger.model
        free = [job.id for job in model.jobs.values() if model.claimable(job)]
        if free and self.begin_run(free[0], credential) and begins:
            self.begin(self.runs[-1], own=False)

    @precondition(Hands.has_runs)
    @rule(back=RECENT, how=st.sampled_from(("renew", "listen", "begin", "begin a step")))
    def go_on(self, back: int, how: str) -> None:
        run = self.run(back)
        match how:
            case "renew":
                self.write(run, lambda: self.ledger.renew(run.job))
            case "listen":
                self.ledger.wanted(run.job)
            case _:
                self.begin(run, own=how == "begin a step")

    @precondition(Hands.has_runs)
    @rule(
        back=RECENT,
        final=st.booleans(),
        follow=st.booleans(),
        version=st.sampled_from((None, "v1", "v2")),
        heard=st.sampled_from((True, True, False)),
    )
    def commit(
        self, back: int, final: bool, follow: bool, version: str | None, heard: bool
    ) -> None:
        """A worker that does not hear the answer goes on as if nothing were committed."""
        run, following = self.run(back), uuid4() if final and follow else None
        moved = self.write(
            run,
            lambda: self.ledger.advance(
                run.job,
                step=run.step,
                minted=run.minted,
                final=final,
                following=following,
                version=version,
            ),
        )
        if moved is not None and heard:
            run.job = replace(run.job, head=run.minted, fresh_next=False)

    @precondition(Hands.has_runs)
    @rule(
        back=RECENT,
        state=st.sampled_from(("done", "failed", "cancelled", "queued", "queued")),
        follow=st.booleans(),
        wait=st.sampled_from((0, 15)),
        counted=st.booleans(),
    )
    def give_up(self, back: int, state: str, follow: bool, wait: int, counted: bool) -> None:
        """End the job, or let it wait, without moving the head."""
        run, run_at = self.run(back), self.ledger.now + wait
        if state == "queued":
            self.write(
                run, lambda: self.ledger.put_back(run.job, run_at=run_at, counted=counted)
            )
        else:
            following = uuid4() if follow else None
            self.write(run, lambda: self.ledger.finish(run.job, state, following))

    @precondition(Hands.has_runs)
    @rule(back=RECENT, passed=st.booleans())
    def check(self, back: int, passed: bool) -> None:
        self.prove(self.run(back), passed=passed)

    @rule(
        project=st.sampled_from(PROJECTS),
        what=st.sampled_from(("claim", "late", "racers", "racers")),
    )
    def race(self, project: str, what: str) -> None:
        """Ask for a race, claim it, go on with it as whoever had it once, or run those who race."""
        if self.open_race(project) is None:
            self.enqueue("update", project=project, prompt="make it", race=True)
        asked = self.open_race(project)
        if asked is None:
            return  # there is nothing to race from
        for before in [*self.ledger.model.lane(project)]:
            if before.id != asked and what == "claim":
                self.end(before.id)
        had = [run for run in self.runs if run.job.id == asked and run.job.head]
        if what == "racers":
            for racer in self.ledger.model.racers(self.ledger.model.jobs[asked]):
                self.end(racer.id)
        if what != "late" and self.begin_run(asked, CREDENTIALS[0]):
            had = self.runs[-1:] if self.runs[-1].job.head else []
        if had:
            self.go_on_racing(had[0 if what == "late" else -1])

    @precondition(Hands.has_runs)
    @rule(
        back=RECENT,
        credential=st.sampled_from(CREDENTIALS),
        wait=st.sampled_from((None, 10, 60)),
        lifted=st.booleans(),
    )
    def park(self, back: int, credential: str, wait: int | None, lifted: bool) -> None:
        """The credential is limited, and perhaps works again before the job is parked."""
        run, until = self.run(back), self.ledger.impose(credential, wait)
        if lifted:
            self.ledger.clear(credential)
        put = partial(self.ledger.put_back, run.job, run_at=until, counted=False)
        self.write(run, lambda: put(credential=credential))

    # Time, death, and those who look after it

    @rule(passed=st.sampled_from(LEAPS), rescue=st.booleans())
    def pass_time(self, passed: int, rescue: bool) -> None:
        self.ledger.tick(passed)
        if rescue:
            self.rescue_the_expired()

    @precondition(Hands.has_runs)
    @rule(back=RECENT, known=st.booleans())
    def die(self, back: int, known: bool) -> None:
        """Its process is gone, and that is known; or somebody takes it for gone."""
        job = self.run(back).job
        self.ledger.rescue(job.id, job.attempt if known else None)

    @rule(room=st.integers(1, 4), recall=st.booleans())
    def publish(self, room: int, recall: bool) -> None:
        if recall:
            self.ledger.recall()
        self.ledger.take_due(room)

    @precondition(Hands.has_jobs)
    @rule(back=RECENT, credential=st.sampled_from(CREDENTIALS), clear=st.booleans())
    def limit(self, back: int, credential: str, clear: bool) -> None:
        """What a worker does that may not claim; or somebody says the credential works."""
        if clear:
            self.ledger.clear(credential)
        elif limit := self.ledger.standing(credential):
            self.ledger.park_waiting(self.job(back), limit)

    # Operators

    @rule(
        project=st.sampled_from(PROJECTS),
        what=st.sampled_from(("rewind", "rewind", "begin fresh", "expire", "condemn")),
        back=RECENT,
    )
    def operate(self, project: str, what: str, back: int) -> None:
        """An old or damaged head stays the head; a rewind moves it, if the lane is free."""
        known = self.ledger.model.projects.get(project)
        if known is None or not known.heads:
            return self.ledger.rewind(project, str(uuid4()))
        match what:
            case "rewind":
                self.ledger.rewind(project, known.heads[-1 - min(back, len(known.heads) - 1)])
            case "begin fresh":
                self.ledger.begin_fresh(project)
            case "expire":
                self.ledger.expire(known.heads[-1])
            case _:
                self.ledger.condemn(known.heads[-1])
        return None

    # What holds

    @invariant()
    def the_ledgers_are_the_same(self) -> None:
        self.ledger.compare()
        self.ledger.in_turn()
