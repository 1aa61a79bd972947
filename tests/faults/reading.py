"""Gather what is known of a run for the history checker."""

import json
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from psycopg import Connection

from tests.faults.history import Asked, Heard, History, Step


@dataclass(frozen=True, slots=True)
class Request:
    """What a producer has an acknowledgement for."""

    project: str
    job: UUID
    prompt: str
    writes: tuple[str, str] | None = None


def history_of(conn: Connection, requests: list[Request], heard: list[Heard]) -> History:
    """The run as it stands; the workspaces are left to the caller."""
    states = dict(conn.execute("select id, state from jobs").fetchall())
    history = History(heard=heard)
    for one in requests:
        state = states.get(one.job, "")
        history.asked.append(Asked(one.project, str(one.job), one.prompt, state, one.writes))
        history.steps.setdefault(one.project, [])
    for project, *step in conn.execute(
        """
        select c.project_id, c.job_id::text, t.step, c.new_session_id, c.old_session_id, c.source
          from session_chain c
          join turns t on t.job_id = c.job_id and t.observed_session_id = c.new_session_id
                      and t.outcome = 'committed'
         order by c.id
        """
    ):
        history.steps.setdefault(project, []).append(Step(*step))
    history.heads = dict(
        conn.execute("select project_id, last_ai_session_id from projects").fetchall()
    )
    return history


def texts(workspace: Path) -> dict[str, str]:
    """The workspace's files with what is in them."""
    return {
        str(path.relative_to(workspace)): path.read_text().strip()
        for path in sorted(workspace.rglob("*"))
        if path.is_file()
    }


def heard_by_deeds(log: Path) -> list[Heard]:
    """What the agent without a CLI has noted: each turn's begin, and its end if it came to one."""
    found, prompts = list[Heard](), dict[str, tuple[str, ...]]()
    for line in filter(None, log.read_text().splitlines()):
        try:
            told = json.loads(line)
        except json.JSONDecodeError:
            continue  # it was killed in the middle of writing this
        shown = prompts.setdefault(told["session"], tuple(told.get("prompts", ())))
        found.append(Heard(told["at"], told["project"], told["session"], shown))
    return found
