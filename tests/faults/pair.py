"""The real ledger beside its model: at the same moment, compared, with a trace of it all."""

import re
from collections import Counter
from dataclasses import dataclass, field

from psycopg import Connection

from db.jobs.lanes import FIRST
from tests.faults.clock import Clock, moment
from tests.faults.ledger_model import Model
from tests.faults.ledger_rows import Job

UUIDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Broken(AssertionError):
    """The ledger is not as it is promised; the text says where, `trace` what was done."""

    trace: str = ""


@dataclass
class Pair:
    """The real ledger and its model, with the trace of what was done to them."""

    clock: Clock
    model: Model = field(default_factory=Model)
    trace: list[str] = field(default_factory=list[str])
    seen: Counter[str] = field(default_factory=Counter[str])  # how often what happened

    @property
    def conn(self) -> Connection:
        return self.clock.conn

    @property
    def now(self) -> int:
        return self.clock.now

    def tick(self, passed: int) -> None:
        self.clock.now += passed
        self.model.now = self.clock.now

    def tell(self, text: str) -> None:
        self.trace.append(f"{self.now:>5} s  {text}")

    def same(self, what: str, told: object, expected: object) -> None:
        self.tell(f"{what}: {told}")
        self.demand(told == expected, f"{what}: the ledger says {told}, the model {expected}")

    def demand(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.tell(f"WRONG: {otherwise}")
            broken = Broken(otherwise)
            broken.trace = self.shown()
            raise broken

    def in_turn(self) -> None:
        """Whose turn it is, in every lane."""
        rows = self.conn.execute(
            "select id from jobs q where state in ('queued', 'parked') and run_at <= now() and "
            + FIRST
        ).fetchall()
        expected = {job.id for job in self.model.jobs.values() if self.model.claimable(job)}
        told = {job_id for (job_id,) in rows}
        self.demand(told == expected, f"it is the turn of {told}, the model's {expected}")

    def _head(self, job: Job) -> str | None:
        project = self.model.projects[job.project]
        return project.head if job.lane == "main" else self.model.branch_of(job)[0]

    def shown(self) -> str:
        """The trace, with a short name for each long id."""
        text = "\n".join(self.trace)
        names = dict[str, str]()
        for found in UUIDS.findall(text):
            names.setdefault(found, f"#{len(names) + 1}")
        return UUIDS.sub(lambda match: names[match[0]], text)

    def compare(self) -> None:
        """Every job's row, and the head of its project."""
        rows = self.conn.execute(
            """
            select j.id, state, attempts, rescues, run_at, lease_until, attempt, credential,
                   cancel_requested_at is not null,
                   case lane when 'main' then last_ai_session_id else (
                       select b.head from branches b
                        where b.project_id = j.project_id and b.lane = j.lane) end,
                   (select count(*) from checks c where c.job_id = j.id)
              from jobs j join projects p using (project_id) where project_id = any(%s)
            """,
            (list(self.model.projects),),
        ).fetchall()
        told = {row[0]: row[1:] for row in rows}
        expected = {
            job.id: (*_row(job), self._head(job), len(job.checks))
            for job in self.model.jobs.values()
        }
        for job_id in told | expected:
            row, model = told.get(job_id), expected.get(job_id)
            self.demand(row == model, f"job {job_id} is {row}, the model's {model}")


def _row(job: Job) -> tuple[object, ...]:
    lease = None if job.lease_until is None else moment(job.lease_until)
    return (
        *(job.state, job.attempts, job.rescues, moment(job.run_at), lease),
        *(job.attempt, job.credential, job.cancel),
    )
