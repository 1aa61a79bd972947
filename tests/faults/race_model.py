"""Checks and races as they are promised, in plain Python: the part of the model that is about them.

A race is a job of the main lane; each of its racers has a lane of its own, a branch, which goes on from
the head that the race began from.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from tests.faults.ledger_rows import Branch, Job, Project


@dataclass
class Races:
    """What the model knows of checks and races."""

    now: float = 0
    jobs: dict[UUID, Job] = field(default_factory=dict[UUID, Job])
    projects: dict[str, Project] = field(default_factory=dict[str, Project])

    def held(self, job_id: UUID, attempt: UUID) -> Job | None:
        """The job, if that attempt is the one that may write for it."""
        job = self.jobs[job_id]
        return job if job.state == "running" and job.attempt == attempt else None

    def wanted(self, job: Job) -> str:
        """What is wanted of it: to go on, to be cancelled, or to make way."""
        raise NotImplementedError

    def racers(self, race: Job) -> list[Job]:
        return [job for job in self.jobs.values() if job.race == race.id]

    def race_is_over(self, job: Job) -> bool:
        return job.race is not None and not self.jobs[job.race].open

    def may_race(self, project: str) -> bool:
        """Whether there is something to race from, or will be."""
        known = self.projects.get(project)
        waits = (j for j in self.jobs.values() if j.project == project and j.lane == "main")
        return bool(known and known.head) or any(job.open for job in waits)

    def record(self, job_id: UUID, attempt: UUID, at: tuple[int, int], *, passed: bool) -> bool:
        """What a command came to: written once, by whoever may write."""
        job = self.held(job_id, attempt)
        if job:
            job.checks.setdefault(at, passed)
        return job is not None

    def begin_race(self, job_id: UUID, attempt: UUID, ids: Iterable[UUID]) -> bool:
        race = self.held(job_id, attempt)
        if race and not self.racers(race):
            project = self.projects[race.project]
            for new in ids:
                lane = f"branch-{new}"
                project.branches[lane] = Branch(project.head, project.head)
                self.jobs[new] = Job(
                    new,
                    race.chain,
                    race.project,
                    "build",
                    race.pos,
                    None,
                    created=self.now,
                    run_at=self.now,
                    begun=True,
                    lane=lane,
                    race=race.id,
                )
        return race is not None

    def wait_for_race(self, job_id: UUID, attempt: UUID) -> bool:
        """It may be claimed whenever it is told of an end."""
        race = self.held(job_id, attempt)
        if race is None or self.wanted(race) != "go on":
            return False
        race.state, race.lease_until, race.run_at = "parked", None, self.now
        race.attempts -= 1
        race.close_turns("failed")
        return True

    def stop_race(self, job_id: UUID, attempt: UUID) -> None:
        race = self.held(job_id, attempt)
        for racer in self.racers(race) if race else ():
            if racer.waits:
                racer.end("cancelled")
            elif racer.open:
                racer.cancel = True

    def promote(self, job_id: UUID, attempt: UUID, racer: UUID) -> bool | None:
        """None: the head is not the one that the race began from. Once."""
        race = self.held(job_id, attempt)
        if race is None:
            return False
        project = self.projects[race.project]
        branch = project.branches[self.jobs[racer].lane]
        if branch.promoted:
            return True
        if project.head != branch.began:
            return None
        assert branch.head
        branch.promoted = True
        project.move(branch.head)
        return True

    def drop(self, racer: UUID) -> bool:
        """Whether its branch was there to be dropped, with nothing left to do."""
        job = self.jobs[racer]
        branches = self.projects[job.project].branches
        busy = any(o.open for o in self.jobs.values() if o.lane == job.lane)
        if busy or job.lane not in branches or branches[job.lane].promoted:
            return False
        del branches[job.lane]
        return True
