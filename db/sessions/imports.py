"""Sessions that were recorded before Baton came, taken into a project in one transaction."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from psycopg import Connection

from db.projects import heads
from db.projects.heads import HeadHeld, Move, hold_head
from db.transcripts import appends, transcripts
from db.transcripts.appends import Fold
from db.transcripts.form import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the recorded session says of itself. `raw_cost_usd` is the CLI's cumulative figure,
    `context_tokens` what its next turn begins with, `turns` those since it last began anew."""

    session_id: str
    began_at: datetime | None
    context_tokens: int
    raw_cost_usd: float
    turns: int
    model: str | None
    cli_version: str | None
    summary: str | None


def add_session(
    conn: Connection,
    project_id: str,
    figures: Figures,
    transcripts_by_subpath: Mapping[str, list[Entry]],
    *,
    user_id: str,
    head: bool,
    fold: Fold,
) -> bool:
    """Store the session, enter it into the registry, and make it the head if `head` says so.

    A project that is unknown is made. Returns whether the session is the head now. Raises
    HeadHeld, with nothing written, when it is there already or another's, or the project works
    just now, or has another head. Raises what Postgres refuses of a name or a project.
    """
    session = figures.session_id
    with conn.transaction():
        conn.execute("select baton_check_name('The project id', %s, 'project')", (project_id,))
        conn.execute("select baton_check_user(%s, operator => true)", (user_id,))
        conn.execute("select baton_check_project('build', %s, %s, null)", (project_id, user_id))
        _check(conn, project_id, session, user_id)
        old = hold_head(conn, project_id)  # then the transcripts, as the clean-up does
        appends.lock(conn, project_id)
        if head and old not in (None, session):
            raise HeadHeld(
                f"Project {project_id} has a head already ({old}): import beside it with"
                " --no-head, or choose another project."
            )
        for subpath, entries in transcripts_by_subpath.items():
            added = None if subpath else fold
            appends.append(conn, project_id, session, entries, subpath=subpath, fold=added)
        is_head = head or old == session
        where = {"project": project_id, "user": user_id}
        status = "active" if is_head else "disconnected"
        if not conn.execute(REGISTER, asdict(figures) | where | {"status": status}).rowcount:
            raise _known(session)  # just now
        if head and old is None:
            origin = {"source": "operator", "reason": "imported"}
            to = Move(old=None, new=session, files_known=False, **origin)
            heads.move(conn, project_id, to, {"session": session, **origin})
    return is_head


def _check(conn: Connection, project_id: str, session: str, user_id: str) -> None:
    """Make the project if it is unknown; see that project and session are this user's."""
    conn.execute("select baton_create_project(%s, %s, null)", (project_id, user_id))
    known = conn.execute(
        """
        select coalesce(project_id = %s and coalesce(user_id, %s) = %s, false)
          from project_ai_session_metrics where session_id = %s
        """,
        (project_id, user_id, user_id, session),
    ).fetchone()
    if known == (False,) or transcripts.exists(conn, project_id, session):
        raise _known(session)


def _known(session: str) -> HeadHeld:
    """One answer, whosever it is."""
    return HeadHeld(f"Session {session} is known already: there is nothing to import.")


# What the product itself had noted of the session stays. It costs nothing here: what it
# cost was paid before, and is in the cumulative figure that the next turn is measured from.
REGISTER = """
    insert into project_ai_session_metrics as m
           (session_id, project_id, user_id, status, created_at, context_tokens, raw_cost_usd,
            turns_since_start, model, cli_version, summary)
    values (%(session_id)s, %(project)s, %(user)s, %(status)s,
            coalesce(%(began_at)s, now()), %(context_tokens)s, %(raw_cost_usd)s, %(turns)s,
            %(model)s, %(cli_version)s, %(summary)s)
    on conflict (session_id) do update
       set user_id = excluded.user_id, status = excluded.status, last_used_at = now(),
           stale_at = null, is_resumable = true, resume_failure_count = 0,
           context_tokens = excluded.context_tokens, raw_cost_usd = excluded.raw_cost_usd,
           turns_since_start = excluded.turns_since_start,
           model = coalesce(excluded.model, m.model),
           cli_version = coalesce(excluded.cli_version, m.cli_version),
           summary = coalesce(excluded.summary, m.summary)
     where m.project_id = excluded.project_id
       and coalesce(m.user_id, excluded.user_id) = excluded.user_id"""
