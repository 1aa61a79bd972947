"""What a client sends: looked at, written, answered.

A message is a job row, and its ack goes out after the commit. The client's id is the request's key
for ever: sent again it is the same job, with another text it is refused.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from psycopg import AsyncConnection
from psycopg.rows import class_row

from config.log import log as logger
from db.jobs import jobs as rows
from gateway import ledger
from gateway.access.limits import MESSAGES, Window
from gateway.acts import decide, stop
from gateway.problems import of_postgres
from gateway.state import State
from worker.client import Build, ChatPlan, Update, enqueue_async
from worker.failures.refused import NotMigrated, Refused
from worker.live.tickets import Guest
from worker.reports import waits
from worker.text.storable import plain

KINDS = {"ask": ChatPlan, "update": Update}
CHOICES = ("retry", "start_new", "keep", "rewind", "repair")
# How a change is refused that begins a project, or did.
BEGUN = ("unknown_project", "key_conflict")
Frame = dict[str, Any]


@dataclass(slots=True)
class Desk:
    """Where one connection's messages are taken."""

    here: State
    guest: Guest
    window: Window

    async def take(self, told: Frame) -> Frame:
        """The ack or nack for a frame."""
        name = told.get("t")
        about = {n: plain(told[n]) for n in ("id", "job") if isinstance(told.get(n), str)}
        if wait := self.window.wait():
            text = f"More than {MESSAGES[0]} messages in {MESSAGES[1]} s: send it again later."
            return _nack(
                about, "too_many_messages", text, retry=True, retry_after=round(wait, 1)
            )
        if name not in ("msg", "answer", "cancel"):
            return _nack(
                about,
                "unknown_frame",
                f"There is no frame {str(name)[:40]!r}: see docs/live.md.",
            )
        try:
            done = await (self._message(told) if name == "msg" else self._act(name, told))
        except NotMigrated:
            return _nack(about, "not_migrated", ledger.MIGRATE, retry=True)
        except Refused as exc:
            return _nack(about, exc.code, str(exc), **_again(exc))
        except ledger.ERRORS as exc:
            return _of_postgres(about, exc)
        if done.get("t") == "nack":
            return {**about, **done}
        return {"t": "ack", **about, **done}

    async def _message(self, told: Frame) -> Frame:
        number, kind, text = told.get("id"), told.get("kind"), told.get("text")
        if not isinstance(number, str) or not _is_uuid(number):
            return _nack({}, "bad_input", "A message needs an id, a UUID of its own.")
        if not isinstance(kind, str) or kind not in KINDS:
            return _nack({}, "bad_input", "kind must be ask or update.")
        if not isinstance(text, str):
            return _nack({}, "bad_input", "A message needs a text.")
        on_lost = told.get("on_lost", "ask")
        if on_lost not in ("ask", "fresh"):
            return _nack({}, "bad_input", "on_lost must be ask or fresh.")
        check = told.get("check")
        if check is not None and not isinstance(check, str):
            return _nack({}, "bad_input", "check must be text: a shell line.")
        race = told.get("race")
        if race is not None and (not isinstance(race, int) or isinstance(race, bool)):
            return _nack({}, "bad_input", "race must be a whole number from 2 to 8.")
        wanted = KINDS[kind](
            project=self.guest.project,
            user=self.guest.user,
            prompt=text,
            key=number.lower(),
            on_lost=on_lost,
            check=check,
            race=race,
        )
        new = uuid4()
        async with (
            self.here.asks.of(self.guest.user),
            self.here.pool.connection() as conn,
        ):
            made = await _enqueue(conn, wanted, new)
        self.here.feeds.ring()
        return {"job": str(made.id), "dup": made.id != new}

    async def _act(self, name: str, told: Frame) -> Frame:
        job = told.get("job")
        found = await self._job(job) if isinstance(job, str) and _is_uuid(job) else None
        if found is None:
            return _nack({}, "unknown_job", "There is no such job.")
        if name == "cancel":
            if not found.ended:
                await stop(self.here, found)
            return {"job": str(found.id), "dup": found.ended}
        choice = told.get("choice")
        if choice not in CHOICES:
            return _nack({}, "bad_input", f"choice must be one of {', '.join(CHOICES)}.")
        if not await decide(self.here, found, str(choice)):
            if found.args.get("answer") == choice:  # it is sent again
                return {"job": str(found.id), "dup": True}
            return _nack({}, "asks_nothing", f"The job {waits.unanswered(found)}.")
        self.here.feeds.ring()
        return {"job": str(found.id), "dup": False}

    async def _job(self, job: str) -> rows.Job | None:
        async with (
            self.here.pool.connection() as conn,
            conn.cursor(row_factory=class_row(rows.Job)) as cur,
        ):
            found = await (await cur.execute(rows.GET, (UUID(job),))).fetchone()
        mine = found and (found.project_id, found.user_id) == (
            self.guest.project,
            self.guest.user,
        )
        return found if mine else None


async def _enqueue(
    conn: AsyncConnection[Any], wanted: ChatPlan | Update, new: UUID
) -> rows.Job:
    """Ask for it, as the job `new` if it is new. A first message begins its project, whatever the
    page calls it; sent again, when the project is there, it is that job still."""
    try:
        return await enqueue_async(conn, wanted, job_id=new)
    except Refused as exc:
        if exc.code not in BEGUN or not isinstance(wanted, Update):
            raise
        return await enqueue_async(conn, Build(**wanted.model_dump()), job_id=new)


def _of_postgres(about: Frame, exc: Exception) -> Frame:
    """As HTTP says it (problems.of_postgres)."""
    problem = of_postgres(exc)
    if problem.status == 500:
        logger.error("live.failed", error=type(exc).__name__, rule=ledger.told(exc))
    return _nack(about, problem.code, problem.detail, retry=problem.status == 503)


def _again(refused: Refused) -> dict[str, Any]:
    """Whether it may be sent again as it is, and in how many seconds."""
    if refused.again_at is None:
        return {"retry": False}
    seconds = (refused.again_at - datetime.now(UTC)).total_seconds()
    return {"retry": True, "retry_after": round(max(seconds, 1), 1)}


def _nack(about: Frame, code: str, text: str, *, retry: bool = False, **more: Any) -> Frame:
    return {"t": "nack", **about, "code": code, "text": text, "retry": retry, **more}


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
