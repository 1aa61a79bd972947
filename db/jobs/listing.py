"""Lists of jobs and projects, a page at a time: what a page costs does not grow with the table.

Jobs: what is open first, in the order of asking, then what ended, the newest end first. A page
goes on behind the place that the last job of the one before had (`after`): that job may have ended
since, or be removed. One that ends between two pages may thus come twice, and none is left out.
"""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, LiteralString, Self
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, dict_row

from db.jobs.jobs import COLUMNS, Job

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job stands, or stood, in the list."""

    ended: datetime | None
    pos: int
    created: datetime
    id: UUID

    def text(self) -> str:
        """For a cursor."""
        ended = self.ended.isoformat() if self.ended else ""
        return f"{ended}/{self.pos}/{self.created.isoformat()}/{self.id}"

    @classmethod
    def of(cls, text: str) -> Self:
        """Raises ValueError for what is none."""
        ended, pos, created, job_id = text.split("/")
        moments = [datetime.fromisoformat(one) for one in (ended, created) if one]
        if any(one.tzinfo is None for one in moments) or not 0 <= int(pos) < 2**63:
            raise ValueError(text)
        return cls(moments[0] if ended else None, int(pos), moments[-1], UUID(job_id))


@dataclass(frozen=True, slots=True)
class Listed(Job):
    """A job with its position among the open ones."""

    pos: int

    @property
    def place(self) -> Place:
        return Place(self.finished_at, self.pos, self.created_at, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which jobs: empty and None are all. `kinds` may have `update` and `repair`: a build that
    was asked for as one. `since`: asked for, or ended, then or later."""

    project: str | None = None
    user: str | None = None
    states: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since: datetime | None = None
    after: Place | None = None
    limit: int = 50


# What a filter leaves. Each is left out of the statement when it is not asked for, so that
# the planner sees which index will do.
FILTERS: dict[str, LiteralString] = {
    "user": 'user_id collate "C" = %(user)s',  # as its index has it
    "states": "state = any(%(states)s)",
    "kinds": """(case when kind = 'build' and args ->> 'asked' in ('update', 'repair')
                      then args ->> 'asked' else kind end) = any(%(kinds)s)""",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One half of the list: which jobs, which of them are a project's (by the index that has
    these), the moment that `since` is about, their order, and what is behind a job."""

    which: LiteralString
    project: LiteralString
    moment: LiteralString
    order: LiteralString
    behind: LiteralString


OPENED = Part(
    "finished_at is null",
    "project_id = %(project)s",
    "created_at",
    "pos, created_at, id",
    "(pos, created_at, id) > (%(pos)s, %(created)s, %(id)s)",
)
ENDED = Part(
    "finished_at is not null",
    'project_id collate "C" = %(project)s',
    "finished_at",
    "finished_at desc, id desc",
    "(finished_at, id) < (%(ended)s, %(id)s)",
)
FINAL = ("done", "failed", "cancelled", "quarantined")


def jobs(conn: Connection, wanted: Wanted) -> list[Listed]:
    """A page of jobs."""
    states = set(wanted.states)
    may_end = not states or bool(states & set(FINAL))
    past_open = states <= set(FINAL) if states else False
    behind_ended = may_end and wanted.after is not None and wanted.after.ended is not None
    found = list[Listed]()
    if not past_open and not behind_ended:
        found = _page(conn, wanted, OPENED, behind=wanted.after is not None)
    if may_end and (left := wanted.limit - len(found)):
        found += _page(conn, replace(wanted, limit=left), ENDED, behind=behind_ended)
    return found


def place(conn: Connection, job_id: UUID) -> Place | None:
    """Where a job stands now; None: there is none of that id."""
    with conn.cursor(row_factory=class_row(Place)) as cur:
        return cur.execute(
            "select finished_at as ended, pos, created_at as created, id from jobs where id = %s",
            (job_id,),
        ).fetchone()


def _page(conn: Connection, wanted: Wanted, part: Part, *, behind: bool) -> list[Listed]:
    parts: list[LiteralString] = [part.which]
    asked_for: list[LiteralString] = [
        text for name, text in FILTERS.items() if getattr(wanted, name)
    ]
    parts += asked_for
    if wanted.project:
        parts.append(part.project)
    if wanted.since:
        parts.append(part.moment + " >= %(since)s")
    if behind:
        parts.append(part.behind)
    where: LiteralString = " and ".join(parts)
    query = "select " + COLUMNS + ", pos from jobs where " + where + " order by " + part.order
    asked = asdict(wanted) | {"states": list(wanted.states), "kinds": list(wanted.kinds)}
    asked |= asdict(wanted.after) if wanted.after else {}
    with conn.cursor(row_factory=class_row(Listed)) as cur:
        return cur.execute(query + " limit %(limit)s", asked).fetchall()


@dataclass(frozen=True, slots=True)
class OpenJob(Job):
    """A job that has not ended, with who holds it."""

    attempt: UUID | None
    boot: str | None
    pid_started: int | None
    credential: str | None
    lease_over: bool | None
    lease_left_s: float | None


def open_of(conn: Connection, project_id: str, *, limit: int | None = None) -> list[OpenJob]:
    """What is not finished of a project, in the order in which it will run."""
    with conn.cursor(row_factory=class_row(OpenJob)) as cur:
        return cur.execute(
            "select "
            + COLUMNS
            + """, attempt, boot, pid_started, credential, lease_until < now() as lease_over,
                   extract(epoch from lease_until - now())::float as lease_left_s
              from jobs where project_id = %s and finished_at is null
             order by state <> 'running', (started_at is not null or id <> chain_id) desc, pos
             limit %s""",
            (project_id, limit),
        ).fetchall()


def projects(
    conn: Connection,
    *,
    user: str | None = None,
    is_open: bool = False,
    since: datetime | None = None,
    after: str | None = None,
    limit: int = 50,
) -> list[Row]:
    """A page of projects in the order of their ids, each with how much of it is open.

    `is_open`: only those with work; `since`: whose session moved then or later.
    """
    parts: list[LiteralString] = ["true"]
    if user:
        parts.append("p.user_id = %(user)s")
    if since:
        parts.append("p.last_ai_session_updated_at >= %(since)s")
    if after:
        parts.append("p.project_id > %(after)s")
    if is_open:
        parts.append(
            "exists (select from jobs j where j.project_id = p.project_id and j.finished_at is null)"
        )
    query: LiteralString = (
        """
        select p.project_id, p.user_id, p.last_ai_session_id, p.last_ai_session_updated_at,
               p.created_at, o.queued, o.running, o.parked
          from (select * from projects p where """
        + " and ".join(parts)
        + """ order by p.project_id limit %(limit)s) p
          left join lateral (
               select count(*) filter (where j.state = 'queued') as queued,
                      count(*) filter (where j.state = 'running') as running,
                      count(*) filter (where j.state = 'parked') as parked
                 from jobs j
                where j.project_id = p.project_id and j.finished_at is null) o on true
         order by p.project_id"""
    )
    asked = {"user": user, "since": since, "after": after, "limit": limit}
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(query, asked).fetchall()


def projects_named(conn: Connection, prefix: str, limit: int = 50) -> list[str]:
    """Ids of projects that begin so, for a shell to complete."""
    rows = conn.execute(
        """
        select project_id from projects
         where project_id >= %(prefix)s and starts_with(project_id, %(prefix)s)
         order by project_id limit %(limit)s
        """,
        {"prefix": prefix, "limit": limit},
    )
    return [found for (found,) in rows]


def is_user(conn: Connection, user_id: str) -> bool:
    """Whether anything is known of the user: a project, or a job."""
    row = conn.execute(
        """
        select exists (select from projects where user_id = %(user)s)
            or exists (select from jobs where user_id collate "C" = %(user)s)
        """,
        {"user": user_id},
    ).fetchone()
    return bool(row and row[0])
