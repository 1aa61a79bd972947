"""Workers that die in the middle of a job, and what is then found of it."""

import signal
from uuid import UUID

from db.jobs import rescue
from db.transcripts import transcripts
from tests.running import AtWork, P
from tests.waiting import wait_until
from tests.workers import worker


def killed_at(at_work: AtWork, asked: UUID, point: str) -> None:
    """The job's worker died at that point, and the job is back in the queue."""
    with worker(asked, point) as process:
        assert process.wait(120) == -signal.SIGKILL
    rescued(at_work, asked)


def killed_after(at_work: AtWork, asked: UUID, *results: str) -> str:
    """The job's worker died when these results of tools were in the store; the session of its turn."""

    def stored() -> str | None:
        turns = at_work.turns(asked)
        session = turns[-1]["minted_session_id"] if turns else ""
        told = str(transcripts.load(at_work.conn, P, session))
        return session if all(f"'content': '{result}'" in told for result in results) else None

    with worker(asked):
        session = wait_until(stored, timeout=120, description=f"{results} to be stored")
    rescued(at_work, asked)
    assert session
    return session


def rescued(at_work: AtWork, asked: UUID) -> None:
    attempt = at_work.value("select attempt from jobs where id = %s", asked)
    assert rescue.rescue(at_work.conn, asked, attempt=attempt, limit=9) == "queued"


def recovered(at_work: AtWork) -> list[tuple[str, str]]:
    return [(body["what"], body["why"]) for body in at_work.events("turn.recovered")]
