"""One cell of the crash-point matrix: what is struck where, and what must come of it."""

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from dev.stack.processes import alive, carrying, look
from tests.acceptance.outside import Baton, files
from tests.faults.strikes import Strikes, Struck
from worker.client import Build
from worker.process.crash_points import POINTS

RELAY_POINTS = ("relay.taken", "relay.sent", "rescue.taken")
WORKER_POINTS = tuple(point for point in POINTS if point not in RELAY_POINTS)
LATER = ("check.taken_back", "race.begun", "race.promoted")  # tests/faults/later_cells.py
# Where a retry is of an attempt that was killed elsewhere than in a tool.
BEFORE = {
    "message.accepted": "message.accepted",
    "check.taken_back": "check.recorded",
    "race.begun": "claim.after",
    "race.promoted": "race.promoted",
}
FAULTS = ("kill", "term", "pause", "error", "db_error")
PATIENCE = 120.0  # seconds for a cell on a busy machine

# A prompt for the stand-in: the turn has tools, text, and lasts longer than a renewal.
PROMPT = "write a.txt: {mark}\nrun: echo {mark} > b.txt\nsleep 0.3\nsay {mark}"
SCRIPTED_PROMPT = "write a.txt: {mark}\nwrite b.txt: {mark}"
# A check that leaves what is part of no version, and is long enough to be met.
CHECK = "touch left; sleep 0.3; test -f a.txt"
AGAIN = "write c.txt: {mark}\nsay {mark} again"

# Where an unknown exception means, by worker/failures/errors.py, that the job has failed.
MAY_FAIL = {
    "workspace.begun",
    "turn.recorded",
    "turn.began",
    "agent.ready",
    "transcript.stored",
    "tool",
    "tool.done",
    "text",
    "turn.ended",
    "tree.made",
    "commit.before",
    "check.before",
    "check.began",
    "check.ended",
    "check.recorded",
    "check.settled",
    *LATER,
}


# What Postgres is asked there may fail; elsewhere nothing is asked.
ASKS = {
    *("message.accepted", "claim.before", "claim.after", "turn.recorded", "transcript.stored"),
    *("tool", "commit.before", "commit.after", "ending.before", "ending.after"),
    *("lease.renewed", "relay.taken", "rescue.taken", "check.recorded"),
}
# What is struck there needs the CLI's turn.
IN_TURN = {
    *("turn.began", "agent.ready", "transcript.stored", "tool", "tool.done", "text"),
    *("turn.ended", "lease.renewed"),
}
SCRIPTED = "scripted"  # how the names of projects begin that are not the CLI's


@dataclass(frozen=True, slots=True)
class Cell:
    """A point, a fault, and whether the job has been killed once before."""

    point: str
    fault: str
    retried: bool

    def __str__(self) -> str:
        return f"{self.fault} at {self.point}, {'retry' if self.retried else 'first attempt'}"

    @property
    def scripted(self) -> bool:
        """Whether the build's agent is none of the CLI's: outside of the turn, but for a SIGKILL on
        the first attempt, so that every point meets the CLI."""
        killed_first = self.fault == "kill" and not self.retried
        return self.point in LATER or (self.point not in IN_TURN and not killed_first)

    @property
    def orders(self) -> list[tuple[str, str]]:
        """What is struck, the strike in question last."""
        before = list[tuple[str, str]]()
        if self.retried:
            before.append((BEFORE.get(self.point, "tool"), "kill"))
        if self.point.startswith("ending"):
            before.append(("turn.recorded", "db_error"))  # a job that has to wait
        return [*before, (self.point, self.fault)]


def matrix(points: Iterable[str]) -> list[Cell]:
    """Every fault at each of the points, on the first attempt and on a retry, but for what would
    only repeat another cell: a failing statement is judged alike on both."""
    return [
        Cell(point, fault, retried)
        for point in points
        for fault in FAULTS
        for retried in (False, True)
        if not (retried and fault == "db_error")
        if not (fault == "db_error" and point not in ASKS)
    ]


@dataclass
class Case:
    """A cell as it runs, in a project of its own. `scripted`: its build's agent is none of the
    CLI's."""

    cell: Cell
    baton: Baton
    strikes: Strikes
    scripted: bool
    project: str = field(init=False)
    began: float = field(default_factory=time.monotonic)
    build: UUID = field(init=False)
    continued: set[int] = field(default_factory=set[int])

    def __post_init__(self) -> None:
        self.project = self.baton.project(SCRIPTED if self.scripted else "cell")
        self.strikes.order(self.project, self.cell.orders)
        self.build = self._ask(SCRIPTED_PROMPT if self.scripted else PROMPT)

    def _ask(self, prompt: str) -> UUID:
        text = prompt.format(mark=self.project)
        if self.cell.point == "message.accepted":
            sent = self.baton.send(
                "tasks.build", project_id=self.project, user_id="ann", prompt=text
            )
            return UUID(sent)
        check = CHECK if self.proves else None
        return self.baton.ask(Build(project=self.project, user="ann", prompt=text, check=check))

    @property
    def proves(self) -> bool:
        """Whether its build has a check."""
        return self.cell.point.startswith("check.")

    def over(self) -> bool:
        """Whether its chain has ended and all is struck; goes on with what was paused."""
        assert time.monotonic() - self.began < PATIENCE, f"{self.cell}: {self._told()}"
        ended = self.ended()
        if self.cell.fault != "pause":
            return ended
        struck = [one for one in self.strikes.struck(self.project) if one.fault == "pause"]
        for one in struck:
            if one.pid not in self.continued:
                self._go_on(one, ended=ended)
        return ended and all(one.pid in self.continued for one in struck)

    def ended(self) -> bool:
        """Whether nothing of its project is left to do."""
        return self.baton.row(
            "select count(finished_at) > 0 and count(finished_at) = count(*) as ended"
            " from jobs where project_id = %s",
            self.project,
        )["ended"]

    def _go_on(self, struck: Struck, *, ended: bool) -> None:
        """SIGCONT, once another process has begun on the project, or nothing is left to do."""
        others = self.baton.rows(
            "select 1 from jobs where project_id = %s and claimed_at > to_timestamp(%s)"
            " and pid <> %s",
            self.project,
            struck.at,
            struck.pid,
        )
        if others or ended:
            self.continued.add(struck.pid)
            if look(struck.pid):
                os.kill(struck.pid, signal.SIGCONT)

    def _told(self) -> str:
        jobs = [
            (job["kind"], job["state"], job["attempts"], job["error"])
            for job in self.baton.jobs(self.project)
        ]
        return f"{jobs}, not struck: {self.strikes.left(self.project)}"

    # --- what must hold once it is over ---

    def wrong(self) -> list[str]:
        """A sentence for each thing that is not as it should be."""
        return [f"{self.cell}: {text}" for text in self._wrong()]

    def _wrong(self) -> list[str]:
        found = [f"not struck: {name}" for name in self.strikes.left(self.project)]
        jobs = self.baton.jobs(self.project)
        states = [str(job["state"]) for job in jobs]
        if states == ["failed"] and self._may_fail():
            return found  # checked further by what is asked for after it
        if states != ["done"] * 3:
            return [*found, f"its chain came to {self._told()}"]
        return found + self._wrong_steps() + self._wrong_attempts(jobs) + self._wrong_files()

    def asked_again(self) -> bool:
        """After a failure that may be, ask for more: nothing that it left may show in that."""
        if not (self._may_fail() and self.baton.job(self.build)["state"] == "failed"):
            return False
        again = AGAIN.format(mark=self.project)
        self.baton.ask(Build(project=self.project, user="ann", prompt=again))
        return True

    def wrong_again(self) -> list[str]:
        """What is not as it should be after that."""
        before = {"a.txt", "b.txt"} if self.proves else set[str]()  # committed before its check
        left = set(self._files()) ^ {"c.txt", "DOCUMENTATION.md", *before}
        return [f"{self.cell}: a failed build left {left}"] if left else []

    def _may_fail(self) -> bool:
        return self.cell.fault == "error" and self.cell.point in MAY_FAIL

    def _wrong_steps(self) -> list[str]:
        rows = self.baton.rows(
            "select step from turns where project_id = %s and outcome = 'committed' order by id",
            self.project,
        )
        steps = [row["step"] for row in rows]
        wanted = ["build", "recommendations", "documentation"]
        return [] if steps == wanted else [f"committed {steps}"]

    def _wrong_attempts(self, jobs: list[dict[str, Any]]) -> list[str]:
        """A kill, a deploy and a pause spend no attempt."""
        if self.cell.fault in ("error", "db_error") or self.cell.point.startswith("ending"):
            return []
        return [
            f"{job['kind']} has spent {job['attempts']} attempts"
            for job in jobs
            if job["attempts"] != 1
        ]

    def _wrong_files(self) -> list[str]:
        found = self._files()
        mark = self.project.encode()
        texts = {name: found.get(name, b"").strip() for name in ("a.txt", "b.txt")}
        wrong = [f"{name} holds {text!r}" for name, text in texts.items() if text != mark]
        if left := set(found) ^ {"a.txt", "b.txt", "DOCUMENTATION.md"}:
            wrong.append(f"the workspace differs by {left}")
        return wrong

    def _files(self) -> dict[str, bytes]:
        return files(Path(self.baton.workspace(self.project)))

    def recovery(self) -> float | None:
        """Seconds from a kill of the job's runner to the next attempt's claim."""
        struck = self.strikes.struck(self.project)[-1]
        if struck.fault != "kill":
            return None
        return self.baton.row(
            """
            select extract(epoch from min(s.at))::float8 - %s as seconds
              from events r join events s using (job_id)
             where r.project_id = %s and r.type = 'job.rescued' and r.at > to_timestamp(%s)
               and s.type = 'job.started' and s.seq > r.seq
            """,
            struck.at,
            self.project,
            struck.at,
        )["seconds"]

    def left_over(self) -> list[str]:
        """Processes of its attempts that still live."""
        rows = self.baton.rows(
            "select distinct attempt from turns where project_id = %s", self.project
        )
        return [
            f"{self.cell}: process {process.pid} is left"
            for row in rows
            for process in carrying("BATON_ATTEMPT", str(row["attempt"]))
            if alive(process)
        ]
