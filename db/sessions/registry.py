"""The registry of agent sessions: whose each is, and whether it may be resumed."""

from dataclasses import dataclass
from datetime import timedelta

from psycopg import Connection
from psycopg.rows import class_row

from db.jobs.attempts import Claimed

TEMPLATES = "_template"  # the user whose projects are templates: no user's text is in them


@dataclass(frozen=True, slots=True)
class Session:
    """One session of the registry, with what decides whether it may be resumed."""

    session_id: str
    project_id: str
    user_id: str | None
    version_id: str | None
    age: timedelta  # since it was last used, by Postgres's clock
    is_resumable: bool
    context_tokens: int
    turns_since_start: int
    cli_version: str | None
    model: str | None
    rank: int  # 0 the head, 1 handed down, 2 the version's, 3 and 4 older heads of its line


def candidates(
    conn: Connection, job: Claimed, *, user_id: str, handed: str | None, limit: int = 5
) -> list[Session]:
    """The sessions that this job might resume, best first. Ownership is checked here, in SQL.

    Older heads are those that led to this one: not what a rewind has undone. A branch has
    its head, what was handed down if it is of the branch, and the session it began from.
    A session of another project or user, or one that the registry does not know, is not
    among them; its row is never lost to a join (the registry itself is the base).
    """
    with conn.cursor(row_factory=class_row(Session)) as cur:
        return cur.execute(
            """
            with recursive path as (  -- what came before the head in its own line
                select session_id, old_session_id, created_at, 1 as back
                  from project_ai_session_metrics
                 where session_id = %(head)s and project_id = %(project)s and %(lane)s = 'main'
                union all
                select m.session_id, m.old_session_id, m.created_at, path.back + 1
                  from path join project_ai_session_metrics m
                    on m.session_id = path.old_session_id and m.project_id = %(project)s
                 where path.back < 20
            ), ranked as (
                select %(head)s::text as session_id, 0 as rank, 0::bigint as id
                union all
                select %(handed)s::text, 1, 0
                 where %(lane)s = 'main'
                    or exists (select from project_ai_session_metrics m
                                where m.session_id = %(handed)s and m.lane = %(lane)s)
                union all
                select b.from_session, 1, 1 from branches b
                 where b.project_id = %(project)s and b.lane = %(lane)s
                union all
                select v.ai_session_id, 2, 0 from project_versions v
                 where v.project_id = %(project)s and v.version_id = %(version)s
                union all
                select session_id, 3, back from path
                union all  -- where the path is not known, all that is older
                (select t.new_session_id, 4, -t.id
                   from session_transitions t
                   join project_ai_session_metrics m on m.session_id = t.new_session_id
                  where t.project_id = %(project)s and %(lane)s = 'main'
                    and m.created_at <= coalesce((select min(created_at) from path), 'infinity')
                  order by t.id desc limit 20)
            ), best as (
                select distinct on (session_id) session_id, rank, id from ranked
                 where session_id is not null order by session_id, rank, id
            )
            select m.session_id, m.project_id, m.user_id, m.version_id,
                   now() - m.last_used_at as age, m.is_resumable, m.context_tokens,
                   m.turns_since_start, m.cli_version, m.model, best.rank
              from best join project_ai_session_metrics m using (session_id)
             where m.project_id = %(project)s and m.user_id = %(user)s
               and (best.rank in (0, 3) or %(lane)s <> 'main' or exists (
                   select from session_transitions t
                    where t.project_id = %(project)s and t.new_session_id = best.session_id))
             order by best.rank, best.id limit %(limit)s
            """,
            {
                "head": job.head,
                "handed": handed,
                "lane": job.lane,
                "project": job.project_id,
                "user": user_id,
                "version": job.version_id,
                "limit": limit,
            },
        ).fetchall()


def get(conn: Connection, session_id: str) -> Session | None:
    """The session, if the registry has it."""
    with conn.cursor(row_factory=class_row(Session)) as cur:
        return cur.execute(
            """
            select session_id, project_id, user_id, version_id, now() - last_used_at as age,
                   is_resumable, context_tokens, turns_since_start, cli_version, model, 0 as rank
              from project_ai_session_metrics where session_id = %s
            """,
            (session_id,),
        ).fetchone()


def template(conn: Connection, name: str, *, whole: bool = True) -> str | None:
    """The session that new projects fork: the head of the template's project, if it can be
    (`whole=False`: even if not)."""
    row = conn.execute(
        """
        select p.last_ai_session_id from projects p
          join project_ai_session_metrics m on m.session_id = p.last_ai_session_id
         where p.project_id = %s and p.user_id = %s and (m.is_resumable or not %s)
        """,
        (name, TEMPLATES, whole),
    ).fetchone()
    return row[0] if row else None


def mark_stale(conn: Connection, session_ids: list[str]) -> None:
    """Note that these sessions were found too old to resume. They stay resumable."""
    conn.execute(
        """
        update project_ai_session_metrics set stale_at = now(), status = 'expired'
         where session_id = any(%s) and stale_at is null
        """,
        (session_ids,),
    )


def count_failure(conn: Connection, session_id: str, *, limit: int) -> int:
    """Count a failed resume; at `limit` the session is not resumable any more."""
    row = conn.execute(
        """
        update project_ai_session_metrics
           set resume_failure_count = resume_failure_count + 1,
               is_resumable = is_resumable and resume_failure_count + 1 < %(limit)s
         where session_id = %(session)s
        returning resume_failure_count
        """,
        {"session": session_id, "limit": limit},
    ).fetchone()
    return row[0] if row else 0


def condemn(conn: Connection, session_id: str) -> None:
    """The session is damaged: it is not resumable any more."""
    conn.execute(
        """
        update project_ai_session_metrics
           set is_resumable = false, resume_failure_count = resume_failure_count + 1
         where session_id = %s and is_resumable
        """,
        (session_id,),
    )


def adopt(
    conn: Connection, job: Claimed, session_id: str, *, parent: str | None, raw_cost_usd: float
) -> None:
    """Enter a dead attempt's session, so that it can be gone on from.

    It was no head, and what it cost stands with its turn: here it costs nothing.
    `raw_cost_usd` is the cumulative figure that the CLI goes on from.
    """
    conn.execute(
        """
        insert into project_ai_session_metrics
               (session_id, project_id, user_id, version_id, parent_session_id, job_id, status,
                raw_cost_usd, cost_estimated, turns_since_start, resumed, lane)
        values (%(session)s, %(project)s, %(user)s, %(version)s, %(parent)s, %(job)s,
                'disconnected', %(raw)s, true,
                coalesce((select turns_since_start from project_ai_session_metrics
                           where session_id = %(parent)s), 0),
                %(parent)s::text is not null, %(lane)s)
        on conflict do nothing
        """,
        {
            "session": session_id,
            "project": job.project_id,
            "user": job.user_id,
            "version": job.version_id,
            "parent": parent,
            "job": job.id,
            "raw": raw_cost_usd,
            "lane": job.lane,
        },
    )
