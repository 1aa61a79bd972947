"""Producers in a storm: what they ask for, what was acknowledged, and asking again until it is.

A request whose acknowledgement was lost is sent again under its key, as a producer that
wants it done exactly once does.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from config.settings import settings
from db.jobs import jobs
from tests.faults.reading import Request
from worker.client import Build, ChatPlan, enqueue

CHATS = 0.35  # share of requests that are questions


@dataclass
class Producers:
    """One for each project; `requests` are acknowledged."""

    url: str
    workspaces: Path
    projects: list[str]
    draw: random.Random
    at_once: int  # requests of a project that wait or run; then its producer waits
    requests: list[Request] = field(default_factory=list[Request])
    unsure: dict[str, Build | ChatPlan] = field(default_factory=dict[str, Build | ChatPlan])
    number: int = 0
    _conn: psycopg.Connection | None = None

    def ask(self) -> None:
        """Ask for a little more, or again for what was not acknowledged."""
        project = self.draw.choice(self.projects)
        if project in self.unsure or self._open(project) < self.at_once:
            self.send(self.unsure.get(project) or self._next(project))

    def send(self, ask: Build | ChatPlan) -> bool:
        """Ask; whether it was acknowledged."""
        self.unsure[ask.project] = ask
        found = self._try(lambda conn: self._enqueue(conn, ask))
        if found is None:
            return False
        del self.unsure[ask.project]
        prompt = str(ask.prompt)
        writes = _writes(prompt) if isinstance(ask, Build) else None
        self.requests.append(Request(ask.project, found.id, prompt, writes))
        return True

    def cancel(self, chooses: float) -> None:
        """Cancel one of the requests that are not over."""
        open_ = self.rows(
            "select chain_id from jobs where finished_at is null order by created_at"
        )
        if open_:
            (job,) = open_[int(chooses * len(open_))]
            self._try(lambda conn: jobs.cancel(conn, job))

    def over(self) -> bool:
        """Whether nothing is left to do. False while Postgres does not say."""
        rows = self.rows("select count(*) from jobs where finished_at is null")
        return rows == [(0,)]

    def rows(self, query: LiteralString, *values: object) -> list[Any]:
        """What Postgres answers; nothing while it is away."""
        return self._try(lambda conn: conn.execute(query, values).fetchall()) or []

    def build(self, project: str, *, last: bool = False) -> Build:
        """A request for a file of its own."""
        n = self._number()
        pause = "" if last else f"sleep {self.draw.uniform(0, 0.4):.2f}\n"
        prompt = f"write f{n}.txt: {n}\nrun: echo {n}\n{pause}say {n} is there"
        return Build(project=project, user="ann", prompt=prompt, key=f"k{n}")

    def chat(self, project: str) -> ChatPlan:
        n = self._number()
        return ChatPlan(project=project, user="ann", prompt=f"say answer {n}", key=f"k{n}")

    def _next(self, project: str) -> Build | ChatPlan:
        chats = self.draw.random() < CHATS
        return self.chat(project) if chats else self.build(project)

    def _number(self) -> int:
        self.number += 1
        return self.number

    def _open(self, project: str) -> int:
        rows = self.rows(
            "select count(distinct chain_id) from jobs"
            " where project_id = %s and finished_at is null",
            project,
        )
        return rows[0][0] if rows else self.at_once

    def _enqueue(self, conn: psycopg.Connection, ask: Build | ChatPlan) -> Any:
        with pytest.MonkeyPatch.context() as env:
            env.setenv("BATON_WORKSPACES", str(self.workspaces))
            settings.cache_clear()
            return enqueue(conn, ask)

    def _try(self, do: Callable[[psycopg.Connection], Any]) -> Any:
        """What it gives, or None where the connection breaks, however far it has come."""
        try:
            if self._conn is None:
                self._conn = psycopg.connect(self.url, autocommit=True, connect_timeout=2)
            return do(self._conn)
        except psycopg.OperationalError:
            self.close()
            return None

    def close(self) -> None:
        """Let the connection go; the next question opens another."""
        if self._conn:
            with suppress(psycopg.Error):
                self._conn.close()
        self._conn = None


def _writes(prompt: str) -> tuple[str, str]:
    name, _, text = prompt.splitlines()[0].removeprefix("write ").partition(": ")
    return name, text
