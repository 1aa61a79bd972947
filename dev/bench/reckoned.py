"""`baton bench reckoned`: the study (study.py) as arithmetic, without CLI and model: every gap, both
tasks, 50 updates, in a second.

A chain is what the real CLI did in the study: a request for each look, file and piece of work, two
for each leg of the metadata, one for a compaction, which keeps the five files that were read last.
Its sizes are means of the study's; what it costs is counted by the provider's rules. The policies
are the product's own (worker/session/cheapest.py), asked as the ladder asks them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from config.settings import settings
from db.sessions.habits import Habits
from dev.bench.reader import TASKS, Task
from worker.session import cheapest, prices
from worker.session.cheapest import Weighed

GAPS = {"1m": 60.0, "10m": 600.0, "2h": 7200.0, "1d": 86_500.0}
FIXED, TOLD, LOOK, FILE, WORK, ASKED, LEG = 6700, 700, 700, 1850, 350, 200, 250  # tokens
SUMMARY, KEPT_FILES, ANSWER = (
    600,
    5,
    60,
)  # a summary's tokens; files after it; tokens of an answer
FILES = 30  # of the code base, that updates need
OURS = ("ours", "cheapest")
POLICIES = ("fresh", "resume", "resume+compact", *OURS)
COUNTS = (6, 20, 50)


READ, WRITTEN, WRITTEN_HOUR, OUTPUT = 0.1, 1.25, 2.0, 5.0


@dataclass
class Session:
    """A conversation: its tokens, which of them are cached, and the files that it knows."""

    tokens: int = FIXED
    cached: int = 0
    hour: bool = False
    files: list[int] = field(default_factory=list[int])
    spent: float = 0.0
    requests: int = 0
    wrote: int = 0

    def ask(self, more: int) -> None:
        """One request; its answer and what a tool says to it are part of the next."""
        new = self.tokens - min(self.cached, self.tokens)
        rate = WRITTEN_HOUR if self.hour else WRITTEN
        self.spent += READ * (self.tokens - new) + rate * new + OUTPUT * ANSWER
        self.requests += 1
        self.wrote += new
        self.cached, self.tokens = self.tokens, self.tokens + more

    def compact(self) -> None:
        self.ask(0)
        self.spent += OUTPUT * SUMMARY
        self.files = self.files[-KEPT_FILES:]
        self.tokens, self.cached = FIXED + SUMMARY + FILE * len(self.files), FIXED


@dataclass
class Project:
    """What is known of its past, as the ledger tells it."""

    habits: Habits = field(default_factory=lambda: Habits([]))
    session: Session = field(default_factory=Session)
    compacted: bool = False
    wrote: list[float] = field(default_factory=list[float])
    went_on: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    def update(self, task: Task, number: int, *, fresh: bool) -> None:
        """One chain, but for its compaction."""
        session = self.session
        if fresh:
            self.session = session = Session(cached=session.cached and FIXED, hour=session.hour)
            session.tokens += TOLD
        session.spent, session.requests, session.wrote = 0.0, 0, 0
        before = session.tokens
        for tokens in _requests(task, number, session):
            session.ask(tokens)
        ended = session.tokens
        for tokens in (LEG, ASKED) * 2:
            session.ask(tokens)
        self._note(fresh=fresh, before=before, ended=ended)

    def compact(self) -> None:
        self.session.compact()
        self.habits = replace(self.habits, summary=float(SUMMARY))
        self.compacted = True

    def _note(self, *, fresh: bool, before: int, ended: int) -> None:
        self.wrote.append(self.session.wrote)
        calls = float(self.session.requests)
        if fresh:
            self.habits = replace(self.habits, begun=float(ended), begun_calls=calls)
        elif self.compacted:
            self.habits = replace(self.habits, summed=float(ended), summed_calls=calls)
        else:
            self.went_on.append((calls, ended - before))
        if self.went_on:
            calls, grown = (sum(x) / len(self.went_on) for x in zip(*self.went_on, strict=True))
            self.habits = replace(self.habits, calls=calls, grown=grown)
        self.habits = replace(self.habits, written=sum(self.wrote) / len(self.wrote))
        self.compacted = False


def _requests(task: Task, number: int, session: Session) -> list[int]:
    """What each answer of the update's own turn, and what comes of it, adds to the context."""
    own = [task.common + (number * task.own + n) % FILES for n in range(task.own)]
    needed = [*range(task.common), *own]
    missing = [file for file in needed if file not in session.files]
    looks = task.looks if len(missing) == len(needed) else 0
    session.files += missing
    session.tokens += ASKED
    return [LOOK] * looks + [FILE] * len(missing) + [WORK] * task.writes + [ASKED]


def costs(task: Task, policy: str, gap: float, updates: int) -> Iterator[float]:
    """Of each update, in tokens of plain input, without the first build."""
    project = Project()
    project.update(task, 0, fresh=True)
    _end(project, policy)
    for number in range(1, updates + 1):
        lost = gap >= (3600 if project.session.hour else 300)
        project.session.cached = 0 if lost else project.session.cached
        project.habits = replace(project.habits, gaps=[gap, *project.habits.gaps])
        before = 0.0
        way = _begin(project, policy, gap)
        if way and way.way == "compact":
            project.session.spent = 0.0
            project.compact()
            before = project.session.spent
        project.update(
            task, number, fresh=policy == "fresh" or bool(way and way.way == "fresh")
        )
        _end(project, policy)
        yield before + project.session.spent


def _begin(project: Project, policy: str, gap: float) -> Weighed | None:
    """What is decided of the head: as weighing.look_at and the ladder do."""
    if policy not in OURS:
        return None
    session, habits = project.session, project.habits
    if habits.known and session.tokens >= cheapest.HOUR_FROM:
        session.hour = cheapest.worth_an_hour(session.tokens, habits)
    if gap > settings().stale_after.total_seconds():
        return cheapest.weigh(
            "stale", ("fresh", "resume"), context=session.tokens, idle=gap, habits=habits
        )
    for_cost = policy == "cheapest"
    if session.tokens < cheapest.long() or not (
        for_cost or cheapest.cold(session.tokens, gap, habits)
    ):
        return None
    ways: tuple[cheapest.Way, ...] = ("resume", "compact")
    ways = (*ways, "fresh") if for_cost else ways
    return cheapest.weigh("cold", ways, context=session.tokens, idle=gap, habits=habits)


def _end(project: Project, policy: str) -> None:
    if policy in OURS:
        found = cheapest.sum_up_now(project.session.tokens, project.habits)
        if not found or found.way != "compact":
            return
    elif policy != "resume+compact":
        return
    project.compact()


def usd(task: str, policy: str, gap: str, updates: int) -> list[float]:
    """Of each update: a policy that goes by cost is told so by its setting."""
    os.environ["BATON_LONG_SESSIONS"] = "cheapest" if policy == "cheapest" else "keep"
    settings.cache_clear()
    each = costs(TASKS[task], policy, GAPS[gap], updates)
    return [prices.usd(tokens, "opus") or 0.0 for tokens in each]


def main(_: Path) -> int:
    """Print what each policy comes to, as a share of the best fixed one."""
    for task in TASKS:
        table = Table(
            title=f"Updates of which each needs {task} files: USD (to the best fixed policy)"
        )
        for column in ("gap", "policy", *(f"{count} updates" for count in COUNTS)):
            table.add_column(column)
        for gap in GAPS:
            for policy, cells in told(task, gap).items():
                table.add_row(
                    gap, policy, *(f"{usd:.2f} ({ratio:.2f})" for usd, ratio in cells)
                )
            table.add_section()
        Console(highlight=False).print(table)
    return 0


def told(task: str, gap: str) -> dict[str, list[tuple[float, float]]]:
    """By policy, after so many updates (COUNTS): the cost in USD, and to the best fixed policy's."""
    each = {policy: usd(task, policy, gap, max(COUNTS)) for policy in POLICIES}
    sums = {policy: [sum(costs[:count]) for count in COUNTS] for policy, costs in each.items()}
    fixed = [sums[policy] for policy in POLICIES if policy not in OURS]
    best = [min(column) for column in zip(*fixed, strict=True)]
    return {
        policy: [(cost, cost / least) for cost, least in zip(of, best, strict=True)]
        for policy, of in sums.items()
    }
