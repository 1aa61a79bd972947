"""Checks and races on the real ledger, beside their model: as tests/faults/compared.py."""

from contextlib import suppress
from typing import Any
from uuid import UUID

from db.core.events import Event
from db.jobs import checks
from db.jobs.attempts import Claimed
from db.jobs.checks import Result, Stand
from db.jobs.endings import Wait
from db.projects import branches, races
from db.projects.heads import HeadHeld
from db.projects.races import Racer
from tests.faults.pair import Pair

# What a command came to, but for where and how.
PLAIN: dict[str, Any] = {
    **dict.fromkeys(("signal", "reason", "failure", "tree")),
    **dict.fromkeys(("duration_ms", "output_bytes"), 0),
    **dict.fromkeys(("output_head", "output_tail"), ""),
    "command": "make test",
    "changed": [],
}


class Proved(Pair):
    """The moves that are about checks and races."""

    def stand(self, job: Claimed) -> Stand:
        told = checks.stand(self.conn, job)
        rows = {(one.round, one.number): one.passed for one in told.results}
        self.same(f"checks of {job.id}", rows, self.model.jobs[job.id].checks)
        return told

    def record(self, job: Claimed, at: tuple[int, int], *, passed: bool) -> bool:
        found = Result(
            **PLAIN,
            round=at[0],
            number=at[1],
            outcome="passed" if passed else "failed",
            exit_status=0 if passed else 1,
        )
        event = Event(f"check.{found.outcome}", job.id, {})
        told = checks.record(self.conn, job, found, event, status=None)
        expected = self.model.record(job.id, job.attempt, at, passed=passed)
        self.same(f"check {at} of {job.id} ({passed=})", told is not None, expected)
        return told is not None

    # Races

    def racers(self, job: Claimed) -> list[Racer]:
        told = races.racers(self.conn, job)
        ours = self.model.racers(self.model.jobs[job.id])
        self.same(
            f"racers of {job.id}",
            {one.id: (one.state, one.head, one.promoted) for one in told},
            {one.id: (one.state, *self.model.branch_of(one)) for one in ours},
        )
        return told

    def begin_race(self, job: Claimed, ids: list[UUID]) -> bool:
        asked = {
            new: {"racer": n, "check": "make test", "check_tries": 1}
            for n, new in enumerate(ids, start=1)
        }
        told = races.begin(self.conn, job, asked)
        self.same(
            f"begin the race {job.id}", told, self.model.begin_race(job.id, job.attempt, ids)
        )
        if told:
            self.seen["raced"] += 1
        return told

    def wait_for_race(self, job: Claimed) -> bool:
        wait = Wait(
            state="parked", delay=races.LOOK_AGAIN, counted=False, error_class=races.WAITS
        )
        told = races.wait(self.conn, job, wait, [Event("job.parked", job.id, {})])
        expected = self.model.wait_for_race(job.id, job.attempt)
        self.same(f"{job.id} waits for its race", told is not None, expected)
        races.look_again(self.conn, job)
        return told is not None

    def stop_race(self, job: Claimed) -> None:
        self.tell(f"{job.id} stops its race")
        races.stop(self.conn, job)
        self.model.stop_race(job.id, job.attempt)

    def promote(self, job: Claimed, racer: Racer) -> bool | None:
        """None: the head was moved meanwhile."""
        try:
            told = races.promote(self.conn, job, racer, str(job.chain_id), "passing")
        except HeadHeld:
            told = None
        expected = self.model.promote(job.id, job.attempt, racer.id)
        self.same(f"{job.id} promotes {racer.id}", told, expected)
        if told is not False:
            self.seen["promoted" if told else "not promoted"] += 1
        return told

    def drop(self, racer: Racer) -> None:
        told = False
        with suppress(HeadHeld):
            branches.drop(self.conn, self.model.jobs[racer.id].project, racer.lane, why="race")
            told = True
        self.same(f"drop the branch of {racer.id}", told, self.model.drop(racer.id))
