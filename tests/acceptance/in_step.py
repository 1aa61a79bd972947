"""A look at the ledger, all the time that Baton runs: are head, versions and transitions in step?"""

import threading
import time
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg

from tests.invariants import ALWAYS

LOOK_EVERY = 0.1  # seconds between two looks whether ids and tables are in step
REST = 19  # times as long as the look took, which grows with the tables
LONGEST = 0.3  # seconds
STEADY: dict[str, LiteralString] = {
    name: query for name, query in ALWAYS.items() if name.startswith(("3:", "4:", "5:"))
}


@dataclass
class InStep:
    """Looks all the time whether head, versions and transitions say the same; notes the heads."""

    url: str
    looks: int = 0
    wrong: list[str] = field(default_factory=list[str])
    heads: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    done: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            took = 0.0
            while not self.done.wait(min(max(LOOK_EVERY, REST * took), LONGEST)):
                began = time.monotonic()
                self._look(conn)
                took = time.monotonic() - began

    def _look(self, conn: psycopg.Connection) -> None:
        for name, query in STEADY.items():
            self.wrong += [f"{name}: {text}" for (text,) in conn.execute(query)]
        found = conn.execute(
            "select project_id, last_ai_session_id from projects"
            " where last_ai_session_id is not null"
        )
        for project, head in found:
            seen = self.heads.setdefault(project, [])
            if head not in seen[-1:]:
                seen.append(head)
        self.looks += 1
