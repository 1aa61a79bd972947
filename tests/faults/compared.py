"""The real ledger and its model, asked the same: whatever they answer differently is wrong.

Each method makes one move by the product's own function, on a real Postgres whose clock
is set (tests/faults/clock.py), makes it in the model too, and raises Broken if the two
differ. What was done is kept, to be shown with a failure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from db.core.events import Event
from db.jobs import attempts, endings, jobs, limits, outbox, rescue
from db.jobs.attempts import Claimed, Runner
from db.jobs.endings import End, Wait
from db.jobs.lanes import Message, Next
from db.jobs.limits import Limit
from db.projects import heads, projects
from db.sessions import commits, registry, turns
from db.sessions.commits import Advance
from db.sessions.turns import Try
from tests.faults.clock import moment, seconds
from tests.faults.ledger_rows import FOREVER
from tests.faults.proved import Proved

LEASE = 30  # seconds
TRUSTED = 25  # of them, for which a worker trusts its lease
RESCUES = 2  # workers that die of a job until it is set aside
PAUSE = 2  # before a message that nobody has claimed is sent again
LONGEST = 8

Send = Callable[[], UUID | None]


@dataclass
class Ledger(Proved):
    """Every move that is compared."""

    def _note_if_late(self, job: Claimed) -> None:
        self.seen["late"] += self.model.held(job.id, job.attempt) is None

    # Asking

    def enqueue(
        self, project: str, kind: str, *, job_id: UUID, send: Send, **asked: Any
    ) -> UUID | None:
        """`send` makes the request and returns the job's id, or None if it was refused."""
        told = send()
        expected = self.model.enqueue(job_id, project, kind, **asked)
        self.same(f"enqueue {kind} {project} {asked}", told, expected)
        return told

    def cancel(self, job_id: UUID) -> None:
        told = jobs.cancel(self.conn, job_id)
        self.model.cancel(job_id)
        self.same(f"cancel {job_id}", told and told.state, self.model.jobs[job_id].state)

    def again(self, job_id: UUID) -> UUID | None:
        if self.model.jobs[job_id].race:
            return None  # where it goes depends on its branch: tests/integration/test_races.py
        told = jobs.again(self.conn, job_id)
        if told:
            self.model.again(job_id, told.id)
        else:
            self.demand(self.model.jobs[job_id].open, f"{job_id} was not asked for again")
        self.tell(f"again {job_id}: {told and told.id}")
        return told.id if told else None

    # Running

    def claim(self, job_id: UUID, attempt: UUID, runner: Runner) -> Claimed | None:
        told = attempts.claim(
            self.conn,
            job_id,
            attempt=attempt,
            runner=runner,
            lease=timedelta(seconds=LEASE),
            limit=RESCUES,
        )
        can = self.model.claim(job_id, attempt, runner=runner, lease=LEASE, limit=RESCUES)
        self.same(f"claim {job_id} by {runner.worker_id}", told is not None, can)
        if told:
            job = self.model.jobs[job_id]
            self.demand(
                (told.attempts, told.rescues) == (job.attempts, job.rescues),
                f"{job_id} begins with {told.attempts=} {told.rescues=}",
            )
            project = self.model.projects[job.project]
            fresh = project.fresh_next and job.lane == "main"
            self.demand(
                (told.head, told.fresh_next) == (self.model.head_of(job), fresh),
                f"{job_id} begins with {told.head=} {told.fresh_next=}",
            )
        return told

    def stand_back(self, job_id: UUID, runner: Runner) -> None:
        told = attempts.stand_back(
            self.conn,
            job_id,
            worker_id=runner.worker_id,
            limit=RESCUES,
            pause=timedelta(seconds=PAUSE),
        )
        job = self.model.jobs[job_id]
        due = job.waits and job.run_at <= self.now
        expected = due and self.model.beside(job, runner.worker_id, limit=RESCUES)
        self.seen["stood back"] += told
        self.same(f"{job_id} stands back", told, expected)

    def renew(self, job: Claimed) -> str | None:
        self._note_if_late(job)
        told = attempts.renew(self.conn, job.id, job.attempt, timedelta(seconds=LEASE))
        self.same(f"renew {job.id}", told, self.model.renew(job.id, job.attempt, lease=LEASE))
        return told

    def wanted(self, job: Claimed) -> str | None:
        told = attempts.wanted(self.conn, job.id, job.attempt)
        held = self.model.held(job.id, job.attempt)
        self.same(f"wanted {job.id}", told, held and self.model.wanted(held))
        return told

    def begin(self, job: Claimed, *, step: str, minted: str) -> bool:
        self._note_if_late(job)
        tries = [Try(job.head, "trying")]
        told = turns.begin(
            self.conn, job, step=step, parent=job.head, minted=minted, tries=tries
        )
        expected = self.model.begin(job.id, job.attempt, step=step, minted=minted)
        self.same(f"begin {step} of {job.id}", told, expected)
        return told

    # Ending

    def advance(
        self,
        job: Claimed,
        *,
        step: str,
        minted: str,
        final: bool = True,
        following: UUID | None = None,
        version: str | None = None,
    ) -> list[Message] | None:
        self._note_if_late(job)
        to = Advance(
            step=step,
            old=job.head,
            new=minted,
            parent=job.head,
            minted=minted,
            relation="forked" if job.head else "fresh",
            source="update" if job.head else "build",
            final=final,
            version_id=version,
            new_version=version is not None,
        )
        told = [Event("session.moved", job.id, {})]
        told += [Event("job.done", job.id, {})] if final else []
        moved = commits.advance(
            self.conn,
            job,
            to,
            told=told + _queued(following),
            following=_next(following),
            publish_after=timedelta(seconds=PAUSE),
        )
        expected = self.model.advance(
            job.id,
            job.attempt,
            old=job.head,
            was_fresh=job.fresh_next,
            minted=minted,
            final=final,
            following=following,
        )
        published = None if moved is None else _ids(moved.messages)
        self.same(f"commit {step} of {job.id} ({final=})", published, expected)
        return moved.messages if moved else None

    def finish(
        self, job: Claimed, state: str, following: UUID | None = None
    ) -> list[Message] | None:
        self._note_if_late(job)
        told = [Event(f"job.{state}", job.id, {}), *_queued(following)]
        end = End(state=state, error_class=_why(state), following=_next(following))
        ended = endings.finish(self.conn, job, end, told, timedelta(seconds=PAUSE))
        expected = self.model.finish(job.id, job.attempt, state=state, following=following)
        published = None if ended is None else _ids(ended[1])
        self.same(f"finish {job.id} as {state}", published, expected)
        return ended[1] if ended else None

    def put_back(
        self,
        job: Claimed,
        *,
        run_at: float,
        counted: bool = True,
        credential: str | None = None,
    ) -> bool:
        self._note_if_late(job)
        wait = Wait(
            state="parked" if credential else "queued",
            until=moment(run_at),
            counted=counted,
            credential=credential,
            error_class="rate_limit" if credential else "overloaded",
        )
        told = endings.put_back(self.conn, job, wait, [Event("job.waits", job.id, {})])
        expected = self.model.put_back(
            job.id, job.attempt, run_at=run_at, counted=counted, credential=credential
        )
        self.seen["parked"] += told is not None and credential is not None
        self.same(f"put back {job.id} as {wait.state}", told is not None, expected)
        return told is not None

    def expired(self) -> list[UUID]:
        told = rescue.expired(self.conn)
        over = {j.id for j in self.model.jobs.values() if (j.lease_until or FOREVER) < self.now}
        self.same("expired", set(told), over)
        return sorted(told)

    def rescue(self, job_id: UUID, attempt: UUID | None = None) -> str | None:
        told = rescue.rescue(self.conn, job_id, attempt=attempt, limit=RESCUES)
        expected = self.model.rescue(job_id, attempt, limit=RESCUES)
        self.seen["rescued"] += told is not None
        self.same(f"rescue {job_id} of {attempt or 'whoever let go'}", told, expected)
        return told

    # Publishing

    def take_due(self, room: int) -> list[Message]:
        """What a relay does that looks, and has so much room."""
        outbox.look(self.conn)
        self._replace_as_looked()
        due = outbox.publish(
            self.conn,
            room=room,
            user_slots=0,
            pause=timedelta(seconds=PAUSE),
            longest=timedelta(seconds=LONGEST),
        )
        self.tell(f"take due ({room=}): {[str(one.id) for one in due]}")
        self.demand(len(due) <= room, f"{len(due)} messages are due for a room of {room}")
        for one in due:
            self.demand(
                self.model.claimable(self.model.jobs[one.id]),
                f"{one.id} was published, and it is not its turn",
            )
        if due:
            self._demand_fairness([one.id for one in due])
        return due

    def _replace_as_looked(self) -> None:
        """The relay ends what waits before a request that interrupts, and nothing else."""
        rows = self.conn.execute(
            "select id from jobs where untold and error_class = 'replaced_by_request'"
        )
        for (job_id,) in rows.fetchall():
            if (job := self.model.jobs.get(job_id)) and job.open:
                self.demand(self.model.may_be_replaced(job), f"{job_id} was replaced by nobody")
                job.end("cancelled")

    def _demand_fairness(self, served: list[UUID]) -> None:
        """Nobody is served before a more urgent job, nor beyond a user with fewer at work."""
        rows = self.conn.execute(
            """
            select user_id, count(*) filter (where state = 'running' or published_at is not null),
                   max(priority) filter (where ready), min(priority) filter (where id = any(%s))
              from jobs where finished_at is null group by 1
            """,
            (served,),
        ).fetchall()
        for user, load, _, served_at in rows:
            for other, its_load, urgency, _ in rows:
                if served_at is None or urgency is None or other == user:
                    continue
                self.demand(
                    served_at > urgency or (served_at == urgency and load <= its_load + 1),
                    f"{user} has {load} ({served_at}), and {other} waits with {its_load} ({urgency})",
                )

    def recall(self) -> int:
        return outbox.recall(self.conn, older_than=timedelta(seconds=PAUSE))

    def tell_ends(self) -> int:
        return outbox.tell_ends(self.conn)

    # Limits and operators

    def standing(self, credential: str) -> Limit | None:
        told = limits.standing(self.conn, credential)
        self.same("limit", told is not None, self.model.limited(credential))
        return told

    def impose(self, credential: str, wait: int | None) -> float:
        length = None if wait is None else timedelta(seconds=wait)
        until = seconds(
            limits.impose(self.conn, credential, wait=length, reason="rate_limit")[0]
        )
        self.same(f"limit for {wait} s", until, self.model.impose(credential, wait))
        return until

    def clear(self, credential: str) -> None:
        self.tell(f"clear the limit: {limits.clear(self.conn, credential)}")
        self.model.clear(credential)

    def park_waiting(self, job_id: UUID, limit: Limit) -> None:
        self.tell(f"park {job_id}")
        silent_after = timedelta(seconds=LEASE)
        limits.park_waiting(self.conn, job_id, limit.credential, silent_after=silent_after)
        self.model.park_waiting(job_id, limit.credential)

    def begin_fresh(self, project: str) -> None:
        self.tell(f"the next turn of {project} begins a fresh session")
        projects.begin_fresh(self.conn, project)
        self.model.projects[project].fresh_next = True

    def expire(self, session: str) -> None:
        self.tell(f"{session} is too old")
        registry.mark_stale(self.conn, [session])

    def condemn(self, session: str) -> None:
        self.tell(f"{session} is damaged")
        registry.condemn(self.conn, session)
        self.model.condemned.add(session)

    def rewind(self, project: str, session: str) -> None:
        told = True
        try:
            projects.rewind(self.conn, project, session)
        except heads.HeadHeld:
            told = False
        self.same(f"rewind {project} to {session}", told, self.model.rewind(project, session))


def _queued(following: UUID | None) -> list[Event]:
    return [Event("job.queued", following, {})] if following else []


def _next(following: UUID | None) -> Next | None:
    return Next(following, "metadata", {"asked": "build"}) if following else None


def _ids(messages: list[Message]) -> set[UUID]:
    return {message.id for message in messages}


def _why(state: str) -> str | None:
    return None if state == "done" else "cancelled" if state == "cancelled" else "bad_request"
