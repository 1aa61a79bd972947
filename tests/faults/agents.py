"""Which agents live, seen from outside: processes that carry an attempt, all the time.

The keeper is no agent: it may be the last to go. Two attempts of one lane that are seen
in the same look are two live agents in a lane.
"""

import threading
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from psycopg import Connection

from dev.stack.processes import Process, descendants, look, pids

LOOK_EVERY = 0.1  # seconds
SETTLED = 10  # looks after which a process that is no agent will not become one
MARK = b"BATON_ATTEMPT="
OUR_GIT = b"GIT_COMMITTER_EMAIL=baton@localhost"  # it carries the attempt, and is no agent


@dataclass
class Agents:
    """The attempts that were seen at the same time."""

    looks: Counter[int] = field(default_factory=Counter[int])  # at each that is no agent
    seen: set[str] = field(default_factory=set[str])
    together: set[frozenset[str]] = field(default_factory=set[frozenset[str]])
    done: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.done.wait(LOOK_EVERY):
            here = set(pids())
            found = live_agents(pid for pid in here if self.looks[pid] < SETTLED)
            agents = {pid for _, pid in found}
            self.looks = Counter({pid: self.looks[pid] + 1 for pid in here - agents})
            # A look takes its time: the one may have gone before the other came.
            now = frozenset(attempt for attempt, pid in found if _attempt(pid) == attempt)
            self.seen |= now
            if len(now) > 1:
                self.together.add(now)

    def violations(self, conn: Connection) -> list[str]:
        """A sentence for each two attempts of one lane whose agents lived at once."""
        rows = conn.execute(
            "select distinct t.attempt, t.project_id || ' ' || coalesce(j.lane, 'main')"
            " from turns t left join jobs j on j.id = t.job_id"
        ).fetchall()
        project = {str(attempt): name for attempt, name in rows}
        found = set[str]()
        for group in self.together:
            of = [(project.get(attempt, attempt), attempt) for attempt in sorted(group)]
            names = [name for name, _ in of]
            found |= {
                f"1: agents of two attempts lived at once in {name}: "
                + ", ".join(attempt for other, attempt in of if other == name)
                for name in names
                if names.count(name) > 1
            }
        return sorted(found)

    def left(self, conn: Connection) -> list[str]:
        """A sentence for each agent of this database's attempts that still lives."""
        mine = {str(attempt) for (attempt,) in conn.execute("select attempt from turns")}
        return [
            f"8: process {pid} of attempt {attempt} is left"
            for attempt, pid in live_agents()
            if attempt in mine
        ]


def live_agents(
    among: Iterable[int] | None = None, *, keepers: bool = False
) -> list[tuple[str, int]]:
    """Attempt and pid of each live process below a keeper; or of the keepers themselves."""
    found = list[tuple[str, int]]()
    for pid in pids() if among is None else among:
        attempt = _attempt(pid)
        if attempt and _is_keeper(pid) == keepers and look(pid):
            found.append((attempt, pid))
    return found


@contextmanager
def watching() -> Generator[Agents]:
    """Look at the machine's agents until the block ends."""
    agents = Agents()
    thread = threading.Thread(target=agents.watch, name="agents", daemon=True)
    thread.start()
    try:
        yield agents
    finally:
        agents.done.set()
        thread.join()


def children(leader: int) -> list[Process]:
    """The live children of a process: of a Celery worker, its pool."""
    return [one for one in descendants(leader) if _parent(one.pid) == leader]


def _parent(pid: int) -> int | None:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else None


def _attempt(pid: int) -> str | None:
    environ = _read(pid, "environ").split(b"\0")
    for one in environ if OUR_GIT not in environ else ():
        if one.startswith(MARK) and len(one) > len(MARK):
            return str(UUID(one.removeprefix(MARK).decode()))
    return None


def _is_keeper(pid: int) -> bool:
    """Python with keeper.py, or the shell that is about to become that."""
    begins = _read(pid, "cmdline").split(b"\0")[:4]
    return any(Path(word.decode(errors="replace")).stem == "keeper" for word in begins)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
