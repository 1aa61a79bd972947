"""A project, and what it has open, as a document."""

from typing import Any

from psycopg import Connection

from db.jobs import checks, listing
from db.operations import reports
from db.projects import projects
from db.projects.projects import Project
from worker.reports.jobs import listed

Row = dict[str, Any]
SHOWN = 100  # open jobs of a project
HOLDER = (  # of an open job, beside what every list of jobs has
    *("attempt", "boot", "pid", "pid_started", "credential", "lease_over", "lease_left_s"),
)


def detailed(conn: Connection, found: Project) -> Row:
    """One project: whose it is, where its session stands, and what is going on.

    `next_turn`: `first` (there is no session yet), `fresh` or `resumes`. Of open jobs the first
    SHOWN are there, in the order in which they will run; `open_jobs_more` says how many follow.
    """
    project_id = found.project_id
    overview = reports.overview(conn, project_id)
    found_open = listing.open_of(conn, project_id, limit=SHOWN)
    holders = [{name: getattr(job, name) for name in HOLDER} for job in found_open]
    return {
        "project": found,
        "next_turn": _next_turn(found),
        "check": checks.commands_of(conn, project_id),
        "latest_version": projects.latest_version(conn, project_id),
        **overview,
        "open_jobs": [a | b for a, b in zip(holders, listed(conn, found_open), strict=True)],
        "open_jobs_more": max(overview["open"] - len(found_open), 0),
    }


def path(conn: Connection, project_id: str) -> Row:
    """Every move of the project's session, oldest first, with the checks of what its turn made; `next`
    is the job that comes next."""
    following = listed(conn, listing.open_of(conn, project_id, limit=1))
    proved = checks.of_sessions(conn, project_id)
    moves = reports.moves(conn, project_id)
    for move in moves:
        own = move["source"] != "operator"
        move["checks"] = proved.get(str(move["new_session_id"]), []) if own else []
    return {
        "project_id": project_id,
        "moves": moves,
        "next": following[0] if following else None,
    }


def _next_turn(found: Project) -> str:
    if found.last_ai_session_id is None:
        return "first"
    return "fresh" if found.fresh_next else "resumes"
