"""What the model of the ledger remembers: jobs with their turns, and projects with their heads."""

from dataclasses import dataclass, field
from uuid import UUID

FOREVER = float("inf")  # a moment, in seconds: until somebody clears it
ENDED = ("done", "failed", "cancelled", "quarantined")


def user_of(project: str) -> str:
    """Who owns the project: there are two users."""
    return "bob" if project.endswith(("b", "q")) else "ann"


@dataclass
class Turn:
    """One run of the agent, named by the session that it is to make."""

    step: str
    outcome: str = "running"


@dataclass
class Job:
    """One job. `begun`: claimed once, or not the first of its chain; `last`: the worker that
    runs it, if its death would set the job aside. `checks`: by round and number, whether they passed."""

    id: UUID
    chain: UUID
    project: str
    kind: str
    pos: int
    busy: str | None
    created: float
    run_at: float
    begun: bool = False
    state: str = "queued"
    attempt: UUID | None = None
    attempts: int = 0
    rescues: int = 0
    lease_until: float | None = None
    cancel: bool = False
    credential: str | None = None
    last: str | None = None
    lane: str = "main"
    race: UUID | None = None  # of which it is one
    turns: dict[str, Turn] = field(default_factory=dict[str, Turn])
    checks: dict[tuple[int, int], bool] = field(default_factory=dict[tuple[int, int], bool])

    @property
    def open(self) -> bool:
        return self.state not in ENDED

    @property
    def waits(self) -> bool:
        return self.state in ("queued", "parked")

    def end(self, state: str) -> None:
        self.state, self.lease_until = state, None

    def close_turns(self, outcome: str) -> None:
        """What still ran came to nothing."""
        for turn in self.turns.values():
            if turn.outcome == "running":
                turn.outcome = outcome


@dataclass
class Branch:
    """A lane beside the main one: the head that it began from, and its own."""

    began: str | None
    head: str | None
    promoted: bool = False


@dataclass
class Project:
    """One project: its head, and every session that was one, oldest first; and its open branches."""

    head: str | None = None
    branches: dict[str, Branch] = field(default_factory=dict[str, Branch])
    heads: list[str] = field(default_factory=list[str])
    fresh_next: bool = False  # an operator wants the next turn to begin a fresh session

    def move(self, session: str) -> None:
        self.head = session
        self.heads.append(session)
