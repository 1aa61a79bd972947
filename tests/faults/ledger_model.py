"""The ledger as it is promised, in plain Python: what tests compare the real one with.

The main lane of each project and those of races (race_model.py), one statement at a time, time in
seconds and set from outside. Nothing here knows SQL; what a method returns is what the product's
function of that name must say.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from db.jobs.attempts import Runner
from tests.faults.ledger_rows import FOREVER, Job, Project, Turn
from tests.faults.race_model import Races


@dataclass
class Model(Races):
    """Everything the ledger holds. `now` is set by whoever tells the time."""

    limits: dict[str, float] = field(default_factory=dict[str, float])
    keys: dict[tuple[str, str], tuple[UUID, object]] = field(
        default_factory=dict[tuple[str, str], tuple[UUID, object]]
    )
    condemned: set[str] = field(default_factory=set[str])

    # Asking

    def enqueue(
        self,
        job_id: UUID,
        project: str,
        kind: str,
        *,
        busy: str = "enqueue",
        run_at: float | None = None,
        key: str | None = None,
        body: object = None,
        race: bool = False,
    ) -> UUID | None:
        """The job's id; an older one's for a known key; None: refused, nothing changed."""
        if project not in self.projects and kind not in ("build", "chat_plan"):
            return None
        if race and not self.may_race(project):
            return None
        if key is not None and (known := self.keys.get((project, key))):
            return known[0] if known[1] == body else None
        now = run_at is None or run_at <= self.now  # else it takes nobody's place
        if now and busy == "reject" and any(map(self._has_place, self.lane(project))):
            return None
        if now:
            self._make_way(project, busy)
        self.projects.setdefault(project, Project())
        if key is not None:
            self.keys[project, key] = (job_id, body)
        kind = "build" if kind == "update" else kind
        self._add(job_id, job_id, project, kind, busy=busy, run_at=run_at)
        return job_id

    def _make_way(self, project: str, busy: str) -> None:
        for job in self.lane(project):
            may = busy == "interrupt" or (busy == "replace" and not job.begun)
            if may and job.waits and self._has_place(job):
                job.end("cancelled")

    def _add(
        self,
        job_id: UUID,
        chain: UUID,
        project: str,
        kind: str,
        *,
        busy: str | None = None,
        run_at: float | None = None,
    ) -> Job:
        """A chain's jobs share its place."""
        pos = self.jobs[chain].pos if chain in self.jobs else len(self.jobs)
        job = Job(
            job_id,
            chain,
            project,
            kind,
            pos,
            busy,
            created=self.now,
            run_at=self.now if run_at is None else run_at,
            begun=job_id != chain,
        )
        self.jobs[job_id] = job
        return job

    def again(self, job_id: UUID, new: UUID) -> bool:
        """Only what has ended is asked for again, at the end of the lane."""
        old = self.jobs[job_id]
        if not old.open:
            self._add(new, new, old.project, old.kind)
        return not old.open

    # The order of a lane

    def lane(self, project: str, lane: str = "main") -> Iterator[Job]:
        """What is open, in the order in which it is to run."""
        place = project, lane
        found = [j for j in self.jobs.values() if (j.project, j.lane) == place and j.open]
        return iter(sorted(found, key=lambda job: (not job.begun, job.pos)))

    def in_turn(self, job: Job) -> bool:
        """Whether nothing runs, and no other chain has begun or was asked for before."""
        lane = list(self.lane(job.project, job.lane))
        others = [o for o in lane if o.chain != job.chain]
        return (
            not any(o.state == "running" for o in lane if o is not job)
            and not any(o.begun for o in others)
            and (job.begun or not any(o.pos < job.pos and self._has_place(o) for o in others))
        )

    def _has_place(self, job: Job) -> bool:
        return job.begun or job.state != "queued" or job.run_at <= self.now

    def may_be_replaced(self, job: Job) -> bool:
        """Whether it waits, and a newer request of its lane, or one whose time came after it began,
        interrupts what is before it."""
        return job.waits and any(
            o.busy == "interrupt"
            and not o.begun
            and o.run_at <= self.now
            and (o.pos > job.pos or job.begun)
            for o in self.lane(job.project, job.lane)
            if o.chain != job.chain
        )

    # Running

    def limited(self, credential: str) -> bool:
        return self.limits.get(credential, self.now) > self.now

    def claimable(self, job: Job) -> bool:
        return job.waits and job.run_at <= self.now and self.in_turn(job)

    def claim(
        self, job_id: UUID, attempt: UUID, *, runner: Runner, lease: float, limit: int
    ) -> bool:
        job = self.jobs.get(job_id)
        if job is None or not self.claimable(job) or self.limited(runner.credential):
            return False
        if self.beside(job, runner.worker_id, limit=limit):
            return False
        job.last = runner.worker_id if last_chance(job, limit) else None
        job.state, job.attempt, job.begun, job.credential = "running", attempt, True, None
        job.attempts += 1
        job.lease_until = self.now + lease
        return True

    def beside(self, job: Job, worker: str, *, limit: int) -> bool:
        """Whether the worker runs another that its death would set aside, as it would this one."""
        running = (o for o in self.jobs.values() if o.state == "running")
        return last_chance(job, limit) and any(o.last == worker for o in running)

    def head_of(self, job: Job) -> str | None:
        """What the job goes on from: the project's, or its branch's."""
        project = self.projects[job.project]
        return project.head if job.lane == "main" else project.branches[job.lane].head

    def branch_of(self, job: Job) -> tuple[str | None, bool]:
        """The head of a racer's branch, if it is still there, and whether it was promoted."""
        branch = self.projects[job.project].branches.get(job.lane)
        return (branch.head, branch.promoted) if branch else (None, False)

    def wanted(self, job: Job) -> str:
        if job.cancel or self.race_is_over(job):
            return "cancel"
        newer = any(
            o.busy == "interrupt" and not o.begun and o.run_at <= self.now
            for o in self.lane(job.project, job.lane)
            if o.chain != job.chain
        )
        return "replaced" if newer else "go on"

    def renew(self, job_id: UUID, attempt: UUID, *, lease: float) -> str | None:
        job = self.held(job_id, attempt)
        if job is None:
            return None
        job.lease_until = self.now + lease
        return self.wanted(job)

    def begin(self, job_id: UUID, attempt: UUID, *, step: str, minted: str) -> bool:
        job = self.held(job_id, attempt)
        if job is None:
            return False
        job.turns[minted] = Turn(step)
        return True

    # Ending

    def advance(
        self,
        job_id: UUID,
        attempt: UUID,
        *,
        old: str | None,
        was_fresh: bool,
        minted: str,
        final: bool,
        following: UUID | None,
    ) -> set[UUID] | None:
        """The chain's next job; None: refused, nothing changed."""
        job = self.held(job_id, attempt)
        if job is None or (job.lease_until or 0) <= self.now:
            return None
        turn, project = job.turns.get(minted), self.projects[job.project]
        if (
            turn is None
            or turn.outcome not in ("running", "abandoned")
            or self.head_of(job) != old
        ):
            return None
        if any(t.outcome == "committed" and t.step == turn.step for t in job.turns.values()):
            return None
        if job.lane == "main":
            project.move(minted)
        else:
            project.branches[job.lane].head = minted
        project.fresh_next = project.fresh_next and not was_fresh
        turn.outcome = "committed"
        return self._ended(job, "done", following) if final else set()

    def finish(
        self, job_id: UUID, attempt: UUID, *, state: str, following: UUID | None = None
    ) -> set[UUID] | None:
        job = self.held(job_id, attempt)
        if job is None:
            return None
        job.close_turns("failed")
        return self._ended(job, state, following)

    def _ended(self, job: Job, state: str, following: UUID | None) -> set[UUID]:
        """The chain goes on in the same moment, unless a cancel or newer request was first."""
        goes_on = following is not None and self.wanted(job) == "go on"
        job.end(state)
        if following is None or not goes_on:
            return set()
        self._add(following, job.chain, job.project, "metadata").lane = job.lane
        return {following}

    def put_back(
        self,
        job_id: UUID,
        attempt: UUID,
        *,
        run_at: float,
        counted: bool,
        credential: str | None = None,
    ) -> bool:
        """With a credential: parked until its limit ends, unless that was lifted meanwhile."""
        job = self.held(job_id, attempt)
        if job is None or self.wanted(job) != "go on":
            return False
        until = self.limits.get(credential) if credential else None
        job.state = "queued" if until is None else "parked"
        job.credential = None if until is None else credential
        job.run_at = until or (self.now if credential else run_at)
        job.lease_until = None
        job.attempts -= not counted
        job.close_turns("failed")
        return True

    def rescue(self, job_id: UUID, attempt: UUID | None, *, limit: int) -> str | None:
        """Without an attempt, only a lease that has run out is taken."""
        job = self.jobs[job_id]
        if job.state != "running" or job.lease_until is None:
            return None
        if job.lease_until >= self.now if attempt is None else job.attempt != attempt:
            return None
        job.rescues += 1
        job.attempts = max(0, job.attempts - 1)
        becomes = "quarantined" if job.rescues >= limit else "queued"
        job.end("cancelled" if job.cancel else becomes)
        job.run_at = self.now
        job.close_turns("abandoned")
        return job.state

    # What people and limits do

    def cancel(self, job_id: UUID) -> None:
        """The job, and what follows in its chain; a running one is only told."""
        asked = self.jobs[job_id]
        for job in self.jobs.values():
            after = job.created >= asked.created and not asked.race
            if job.chain == asked.chain and (job is asked or after) and job.open:
                if job.waits:
                    job.end("cancelled")
                else:
                    job.cancel = True

    def impose(self, credential: str, wait: float | None) -> float:
        until = FOREVER if wait is None else self.now + wait
        self.limits[credential] = max(self.limits.get(credential, until), until)
        return self.limits[credential]

    def clear(self, credential: str) -> None:
        self.limits.pop(credential, None)
        for job in self.jobs.values():
            if job.state == "parked" and job.credential == credential:
                job.state, job.credential, job.run_at = "queued", None, self.now

    def park_waiting(self, job_id: UUID, credential: str) -> None:
        job, until = self.jobs[job_id], self.limits.get(credential)
        if job.waits and job.run_at <= self.now and until is not None:
            job.state, job.credential, job.run_at = "parked", credential, until

    def rewind(self, project: str, session: str) -> bool:
        known = self.projects.get(project)
        under_way = any(
            job.state == "running" or job.id != job.chain for job in self.lane(project)
        )
        if (
            known is None
            or under_way
            or session not in known.heads
            or session in self.condemned
        ):
            return False
        known.move(session)
        known.fresh_next = False
        return True


def last_chance(job: Job, limit: int) -> bool:
    """Whether one more death sets the job aside, and it is not its first."""
    return job.rescues > 0 and job.rescues >= limit - 1
