"""Following a chain as it runs: what `baton enqueue --wait` and the demo show.

Two sources make one story. Events come from Postgres, gapless and in order: every job
that begins, ends or waits, every move of the head. What the agent does within a turn
(tool calls, text) comes from Redis when it is there; it is volatile, and nothing
depends on it.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from config.settings import settings
from db.core import events
from db.jobs import jobs
from db.jobs.jobs import Job
from worker.reports import jobs as documents
from worker.reports import waits
from worker.text.units import clock, duration, instant

LOOK_EVERY = 0.2  # seconds
STATE_EVERY = 1.0  # seconds between two looks at what the chain waits for, or how it lives
WAITS, PULSE, SILENT = "waits", "pulse", "silent"
PASSING, LASTS = ("publishing", "starting"), 3.0  # reasons that are told if they last (seconds)
LONG_SILENCE = 30.0  # seconds that are told, and again each time they have doubled
AT_ONCE = 200  # events read at a time
SHOWN_NAMES = 5  # of what is left out, in a line
SHOWN_TEXT = 120  # characters of what the agent says, in a line


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened in a chain.

    `what` is an event's type as in docs/events.md (`job.started`, `session.moved`,
    `job.done`, …), or, within a turn: `turn.began`, `tool`, `tool.done`, `writing`, `text`,
    `model.retry`, `turn.ended`. `kind` is the job's (`build`, `metadata`, …), `step` the turn's name.
    `body` is as the event or the agent gave it: data of others, to be shown escaped.

    Three are no events but what was seen when one looked: `waits` (another reason than before;
    the body is that of worker.reports.waits), `pulse` (each look at a running job: `runs_s`,
    `silent_s`), and `silent` when its agent has said nothing for long.
    """

    at: datetime
    what: str
    job: UUID | None
    kind: str = ""
    step: str = ""
    body: dict[str, Any] = field(default_factory=dict[str, Any])


Story = Iterator[Happening]


def follow(conn: Connection, job_id: UUID) -> Story:
    """What happens in the chain of this job, from its beginning until nothing is left to do.

    Waits between two things; ends after the chain's last event. Raises LookupError for an
    unknown job, and psycopg.OperationalError when Postgres goes away.
    """
    job = jobs.get(conn, job_id)
    if job is None:
        raise LookupError(f"There is no job {job_id}.")
    seq, place = _beginning(conn, job), "0"
    kinds, state = dict[UUID | None, str](), State(job.chain_id)
    while True:
        ended = jobs.ended(conn, job.chain_id)  # looked at before the last events are read
        told, seq = _events(conn, job, seq)
        acted, place = _progress(job.chain_id, place)
        for seen in sorted(told + acted, key=lambda seen: seen.at):
            kind = kinds.setdefault(seen.job, seen.kind)  # not every event says it
            yield replace(seen, kind=seen.kind or kind)
        if ended:
            return
        yield from state.look(conn)
        time.sleep(LOOK_EVERY)


@dataclass
class State:
    """How the open job of a chain stands, looked at now and then; what is new is told."""

    chain_id: UUID
    due: float = 0.0  # the next look (time.monotonic)
    reason: tuple[Any, ...] = ()
    since: float = 0.0
    is_told: bool = False
    silence: float = LONG_SILENCE  # seconds, the next that are told

    def look(self, conn: Connection) -> Story:
        """What there is to tell, if it is time to look."""
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + STATE_EVERY
        for job in documents.listed(
            conn, [j for j in jobs.chain(conn, self.chain_id) if not j.ended]
        ):
            yield from self._waiting(job, now) if job["waits"] else self._running(job)

    def _waiting(self, job: dict[str, Any], now: float) -> Story:
        why, self.silence = job["waits"], LONG_SILENCE
        reason = (job["id"], *waits.distinct(why))
        if reason != self.reason:
            self.reason, self.since, self.is_told = reason, now, False
        if self.is_told or (why["code"] in PASSING and now - self.since < LASTS):
            return
        self.is_told = True
        yield _now(job, WAITS, why)

    def _running(self, job: dict[str, Any]) -> Story:
        self.reason, silent = (), job["silent_s"]
        if silent is None:
            return  # it has just ended or goes to wait, its agent does not run, or Redis is away
        yield _now(job, PULSE, {"runs_s": job["runs_s"], "silent_s": silent})
        if silent < LONG_SILENCE:
            self.silence = LONG_SILENCE
        elif silent >= self.silence:
            while self.silence <= silent:
                self.silence *= 2
            yield _now(job, SILENT, {"silent_s": silent})


def _now(job: dict[str, Any], what: str, body: dict[str, Any]) -> Happening:
    return Happening(datetime.now(UTC), what, job["id"], job["kind"], "", body)


def _beginning(conn: Connection, job: Job) -> int:
    """The number of the project's event before the chain's first; else of its newest."""
    row = conn.execute(
        """
        select coalesce(
            (select min(e.seq) - 1 from events e
              where e.project_id = %(project)s
                and e.job_id in (select id from jobs where chain_id = %(chain)s)),
            (select event_seq from projects where project_id = %(project)s), 0)
        """,
        {"project": job.project_id, "chain": job.chain_id},
    ).fetchone()
    return int(row[0]) if row else 0


def _events(conn: Connection, job: Job, seq: int) -> tuple[list[Happening], int]:
    """The chain's events after number `seq`, and the number that was read up to."""
    found = list[Happening]()
    while True:
        rows = events.since(conn, job.project_id, seq, AT_ONCE)
        seq = rows[-1].seq if rows else seq
        for row in rows:
            if row.job_id == job.id or row.body.get("chain") == str(job.chain_id):
                kind, step = str(row.body.get("kind") or ""), str(row.body.get("step") or "")
                found.append(Happening(row.at, row.type, row.job_id, kind, step, row.body))
        if len(rows) < AT_ONCE:
            return found, seq


def _progress(chain: UUID, after: str) -> tuple[list[Happening], str]:
    """What the agent did after that place in its stream; nothing when Redis is away."""
    if not settings().redis_url:
        return [], after
    from worker.live import progress

    found = list[Happening]()
    try:
        for place, body in progress.follow(chain, after):
            after = place
            at = datetime.fromtimestamp(int(place.partition("-")[0]) / 1000, UTC)
            job, kind, step = (str(body.get(name) or "") for name in ("job", "kind", "step"))
            found.append(Happening(at, str(body.get("what")), UUID(job), kind, step, body))
    except (ValueError, json.JSONDecodeError):
        pass  # an address that is none, or an entry that is not ours
    return found, after


def worth_a_line(seen: Happening) -> bool:
    """Whether people want to read of it: a tool call that ended well says nothing new, nor do the
    pieces of a text that comes whole."""
    if seen.what == "tool.done":
        return bool(seen.body.get("error"))
    return seen.what not in (PULSE, "writing")


def line(seen: Happening) -> str:
    """What was seen, for people, in a few words. Not yet escaped: see `screen.clean`."""
    body = seen.body
    match seen.what:
        case "session.moved":
            return f"session {body.get('session')} ({_origin(body)})"
        case "session.resume_failed":
            return f"{body.get('text')} ({body.get('code')})"
        case "turn.began":
            return "resumes" if body.get("resumes") else "begins a session"
        case "turn.ended":
            return f"turn ended, {body.get('tokens')} tokens in context"
        case "tool":
            return f"{body.get('name')} {body.get('about') or ''}".rstrip()
        case "tool.done":
            return "the tool failed" if body.get("error") else "the tool is done"
        case "credential.limited":
            return f"the credential is limited: {body.get('reason')}"
        case "workspace.kept_aside":
            return f"what a lost attempt left is kept as {body.get('ref')}"
        case "text":
            words = " ".join(str(body.get("text")).split())
            return f"“{words[:SHOWN_TEXT]}{'…' if len(words) > SHOWN_TEXT else ''}”"
        case "model.retry":
            status = f", status {body['error_status']}" if body.get("error_status") else ""
            return f"the model is tried again (attempt {body.get('attempt')}{status})"
        case _:
            return _of_job(seen.what, body)


def _of_job(what: str, body: dict[str, Any]) -> str:
    why = f": {body['error']}" if body.get("error") else ""
    match what:
        case "job.queued":
            return "is queued"
        case "job.started":
            again = f", attempt {body.get('attempt')}" if body.get("attempt") != 1 else ""
            return f"started on {body.get('host')}{again}"
        case "job.done":
            result: dict[str, Any] = body.get("result") or {}
            return f"done (skipped: {result['skipped']})" if result.get("skipped") else "done"
        case "job.waits" | "job.parked":
            until = f" until {_moment(body['until'])}" if body.get("until") else ""
            pause = f" for {body['delay']:.0f} s" if body.get("delay") else ""
            return f"{what[4:]}{until}{pause}{why}"
        case "workspace.left_out":
            return _left_out(body)
        case "waits":
            return f"waits: {body.get('sentence')}"
        case "pulse" | "silent":
            return f"its agent has been silent for {duration(body.get('silent_s'))}"
        case "check.passed" | "check.failed":
            how = what.removeprefix("check.")
            said = " ".join(str(body.get("output") or "").split())[-SHOWN_TEXT:]
            return f"check {how}: {body.get('command')}" + (f" (…{said})" if said else "")
        case "egress.allowed" | "egress.refused":
            kept = (
                f" was not let through ({body['why']})" if body.get("why") else " was reached"
            )
            return f"{body.get('host')}{kept}"
        case "job.rescued":
            return "its worker died; another takes over"
        case _:
            return f"{what.removeprefix('job.')}{why}"


def _left_out(body: dict[str, Any]) -> str:
    named: list[dict[str, str]] = body.get("names") or []
    some = ", ".join(f"{each['name']} ({each['why']})" for each in named[:SHOWN_NAMES])
    more = " and others" if len(named) > SHOWN_NAMES else ""
    return f"left out of its files: {body.get('count')}, {some}{more}"


def _moment(told: Any) -> str:
    """A moment that an event has as text, as all others are shown."""
    try:
        return instant(datetime.fromisoformat(str(told)))
    except ValueError:
        return str(told)


def _origin(body: dict[str, Any]) -> str:
    source, reason = body.get("source"), body.get("reason")
    origin = "fresh" if not body.get("parent") else f"forked from {body['parent']}"
    return f"{source}, {origin}" + (f", {reason}" if reason else "")


def plain(seen: Happening) -> str:
    """What was seen, as a line for logs and pipes: when, which job, which step, what."""
    step = f"{seen.step}: " if seen.step and seen.step != seen.kind else ""
    return f"{clock(seen.at)}  {seen.kind:<10}  {step}{line(seen)}"
