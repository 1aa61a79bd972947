"""Cells of the crash-point matrix that only a later request of a project meets: a race, and a
version that fails its check for good and is taken back."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.faults.cells import SCRIPTED, SCRIPTED_PROMPT, Case
from worker.client import Build, Update

ADDS = "write c.txt: {mark}"
TAKEN_BACK: dict[str, Any] = {"check": "false", "check_tries": 0, "on_check_failed": "rewind"}
RACE: dict[str, Any] = {"check": "test -f c.txt", "race": 2}


@dataclass
class Later(Case):
    """A cell whose strikes are for a request that goes on from a first build."""

    later: UUID | None = field(init=False, default=None)
    head: str | None = field(init=False, default=None)  # before it

    def __post_init__(self) -> None:
        self.project = self.baton.project(SCRIPTED)
        self.strikes.order(self.project, [])
        self.build = self.baton.ask(self._request(Build, SCRIPTED_PROMPT))

    @property
    def races(self) -> bool:
        """Whether the request is a race."""
        return self.cell.point.startswith("race.")

    def _request(self, kind: type[Build | Update], prompt: str, **more: Any) -> Build | Update:
        text = prompt.format(mark=self.project)
        return kind(project=self.project, user="ann", prompt=text, **more)

    def over(self) -> bool:
        """Whether both chains have ended and all is struck; asks for the second after the first."""
        if self.later is None:
            if not self.ended():
                return False
            self.head = self.baton.head(self.project)
            self.strikes.order(self.project, self.cell.orders)
            asked = RACE if self.races else TAKEN_BACK
            self.later = self.baton.ask(self._request(Update, ADDS, **asked))
        return super().over()

    # --- what must hold once it is over ---

    def _wrong(self) -> list[str]:
        found = [name for name in self.strikes.left(self.project) if "publish." not in name]
        assert self.later
        job = self.baton.job(self.later)
        if job["state"] == "failed" and self._may_fail():
            return found  # checked further by what is asked for after it
        wrong = self._wrong_race() if self.races else self._wrong_rewind(job)
        return [*(f"not struck: {name}" for name in found), *wrong]

    def _wrong_race(self) -> list[str]:
        jobs = self.baton.rows(
            "select * from jobs where chain_id = %s order by created_at", self.later
        )
        main = [job for job in jobs if job["lane"] == "main"]
        if [job["state"] for job in main] != ["done"] * 3:
            return [f"its chain came to {self._told()}"]
        found = list[str]()
        if any(job["attempts"] != 1 for job in main):
            found.append(f"attempts {[job['attempts'] for job in main]}")
        racers = [job["state"] for job in jobs if job["lane"] != "main"]
        if len(racers) != 2 or "done" not in racers or not {*racers} <= {"done", "cancelled"}:
            found.append(f"its racers are {racers}")
        branches = self.baton.rows(
            "select promoted_at from branches where project_id = %s", self.project
        )
        if [branch["promoted_at"] is not None for branch in branches] != [True]:
            found.append(f"{len(branches)} branches are left")
        if self._reasons().count("promoted") != 1:
            found.append(f"moved for {self._reasons()}")
        return found + self._wrong_names({"a.txt", "b.txt", "c.txt"})

    def _wrong_rewind(self, job: dict[str, Any]) -> list[str]:
        found = list[str]()
        if job["error_class"] != "check_failed":
            found.append(f"it came to {self._told()}")
        if self.baton.head(self.project) != self.head:
            found.append("the head is not the one before")
        if self._reasons().count("check_failed") != 1:
            found.append(f"moved for {self._reasons()}")
        return found + self._wrong_names({"a.txt", "b.txt"})

    def _reasons(self) -> list[str | None]:
        return [move["reason"] for move in self.baton.moves(self.project)]

    def _wrong_names(self, names: set[str]) -> list[str]:
        left = set(self._files()) ^ {*names, "DOCUMENTATION.md"}
        return [f"the workspace differs by {left}"] if left else []

    def asked_again(self) -> bool:
        """After a failure that may be, ask for more: it goes on from where the project stands."""
        assert self.later
        if not (self._may_fail() and self.baton.job(self.later)["state"] == "failed"):
            return False
        self.baton.ask(self._request(Update, ADDS))
        return True

    def wrong_again(self) -> list[str]:
        """What is not as it should be after that."""
        return [
            f"{self.cell}: {text}" for text in self._wrong_names({"a.txt", "b.txt", "c.txt"})
        ]
