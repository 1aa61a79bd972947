"""Races: one request on several branches at once, of which one takes the main line's place.

The race is a job of the main line. It inserts its racers, each a job of its own branch in the race's
chain, and waits without a slot. What is next follows from their rows: there is no state of a race.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from config.settings import settings
from db.core.events import Event
from db.jobs import jobs
from db.jobs.attempts import Claimed
from db.jobs.endings import Wait, put_back
from db.projects import branches, heads
from db.projects.heads import HeadHeld, Move

WAITS = "racing"  # why the race's job is parked
FIRST, CHEAPEST, SMALLEST = "first", "cheapest", "smallest"
LOOK_AGAIN = timedelta(seconds=30)  # where nobody tells of an end, since its worker died


@dataclass(frozen=True, slots=True)
class Racer:
    """One of a race: its job, and its branch, which is null once it is gone. `commands`: how many
    its newest version has passed; null: no check of it came to an end. `in_time`: it has ended before
    the race's time was over, or that is not over yet. `cost_usd` is that of all its turns."""

    id: UUID
    number: int
    lane: str
    state: str
    ended: bool
    error_class: str | None
    error: str | None
    result: dict[str, Any] | None
    commands: int | None
    committed: bool
    in_time: bool
    cost_usd: Decimal
    from_session: str | None
    head: str | None
    tree: str | None
    promoted: bool

    @property
    def passed(self) -> bool:
        return self.state == "done"

    @property
    def made(self) -> bool:
        """Whether it has come to a version, passing or not, and nobody has cancelled it."""
        return self.committed and self.state != "cancelled"

    @property
    def patch_bytes(self) -> int | None:
        """How much it has changed; None: nobody has looked."""
        return (self.result or {}).get("patch_bytes")


def by(job: Claimed) -> str:
    """Which one of those that pass the race takes: first, cheapest or smallest."""
    return str(job.args.get("race_by") or FIRST)


def time_of(job: Claimed) -> timedelta:
    """How long, from the race's beginning, those that pass are waited for."""
    given = job.args.get("race_seconds")
    return timedelta(seconds=given) if given else settings().race_seconds


def racers(conn: Connection, job: Claimed) -> list[Racer]:
    """Those of a race: first those that have ended, in that order."""
    with conn.cursor(row_factory=class_row(Racer)) as cur:
        return cur.execute(RACERS, {"id": job.id, "time": time_of(job)}).fetchall()


RACERS: LiteralString = """
    select j.id, (j.args ->> 'racer')::int as number, j.lane, j.state,
           j.finished_at is not null as ended, j.error_class, j.error, j.result,
           (select count(*) filter (where c.outcome = 'passed') from checks c
             where c.job_id = j.id
               and c.round = (select max(l.round) from checks l where l.job_id = j.id)
            having count(*) > 0) as commands,
           exists (select from turns t
                    where t.job_id = j.id and t.outcome = 'committed') as committed,
           coalesce(j.finished_at, now()) <= j.created_at + %(time)s as in_time,
           (select coalesce(sum(t.cost_usd), 0) from turns t where t.job_id = j.id) as cost_usd,
           b.from_session, b.head, b.tree, b.promoted_at is not null as promoted
      from jobs r
      join jobs j on j.chain_id = r.chain_id and j.parent_id = r.id and j.args ? 'racer'
      left join branches b on b.project_id = j.project_id and b.lane = j.lane
     where r.id = %(id)s order by j.finished_at, number"""


def begin(conn: Connection, job: Claimed, asked: dict[UUID, dict[str, Any]]) -> bool:
    """Insert the race's jobs, of these ids and arguments, and a branch for each from the job's head.
    Once; False, with nothing written, when the attempt was replaced."""
    with conn.transaction():
        if not _hold(conn, job):
            return False
        if not racers(conn, job):
            for new, args in asked.items():
                conn.execute(BEGIN, _params(job, new, args))
    return True


def _hold(conn: Connection, job: Claimed) -> bool:
    held = conn.execute(
        "select from jobs where id = %s and attempt = %s and state = 'running' for update",
        (job.id, job.attempt),
    )
    return held.rowcount == 1


def _params(job: Claimed, new: UUID, args: dict[str, Any]) -> dict[str, Any]:
    params = {"race": job.id, "new": new, "lane": f"branch-{new}", "args": Jsonb(args)}
    return params | {"head": job.head, "tree": job.tree}


BEGIN: LiteralString = """
    with the_race as (
        select * from jobs where id = %(race)s
    ), new_branch as (
        insert into branches (project_id, lane, user_id, from_session, head, from_tree)
        select project_id, %(lane)s, user_id, %(head)s, %(head)s, %(tree)s from the_race
    )
    insert into jobs (id, chain_id, parent_id, project_id, user_id, lane, pos, kind, args, priority,
                      previous_session_id)
    select %(new)s, chain_id, id, project_id, user_id, %(lane)s, pos, 'build', %(args)s, priority,
           %(head)s from the_race"""


def wait(conn: Connection, job: Claimed, wait: Wait, told: list[Event]) -> list[Any] | None:
    """As `endings.put_back`: the relay sends for the job when one of its race has ended, and when
    the race's time is over."""
    with conn.transaction():
        written = put_back(conn, job, wait, told)
        if written is not None:  # not before the time of its next look, but whenever it is told
            conn.execute(TOLD_SOONER, _asked_of(job) | {"attempt": job.attempt})
    return written


TOLD_SOONER: LiteralString = """
    update jobs r set run_at = now(), publish_after = least(r.publish_after, (
               select min(j.created_at) + %(time)s from jobs j
                where j.chain_id = r.chain_id and j.parent_id = r.id and j.args ? 'racer'
               having %(by)s <> 'first' and min(j.created_at) + %(time)s > now()))
     where r.id = %(id)s and r.attempt = %(attempt)s"""


def look_again(conn: Connection, job: Claimed) -> None:
    """What came to an end before the job waited was told to nobody: then it is sent for now."""
    conn.execute(LOOK, _asked_of(job) | {"waits": WAITS})


LOOK: LiteralString = """
    update jobs r set publish_after = now()
     where r.id = %(id)s and r.state = 'parked' and r.error_class = %(waits)s
       and exists (
        select from jobs j where j.chain_id = r.chain_id and j.parent_id = r.id and j.args ? 'racer'
        having bool_and(j.finished_at is not null)
            or bool_or(j.state = 'done')
               and bool_or(j.finished_at is null and j.cancel_requested_at is null
                           and (%(by)s = 'first' or j.created_at + %(time)s < now())))"""


def _asked_of(job: Claimed) -> dict[str, Any]:
    return {"id": job.id, "by": by(job), "time": time_of(job)}


def base_of(conn: Connection, job: Claimed) -> str | None:
    """The git commit that one of a race began from; None: its branch is gone, or had none."""
    found = conn.execute(
        "select from_tree from branches where project_id = %s and lane = %s",
        (job.project_id, job.lane),
    ).fetchone()
    return found[0] if found else None


def stop(conn: Connection, job: Claimed) -> None:
    """Cancel those of the race that have not ended."""
    conn.execute(STOP, {"id": job.id, "attempt": job.attempt})


STOP: LiteralString = (
    """
    with rest_of_chain as (
        select j.* from jobs j
         where j.parent_id = %(id)s and j.args ? 'racer' and j.finished_at is null
           and j.chain_id = (select r.chain_id from jobs r where r.id = %(id)s
                                and r.attempt = %(attempt)s and r.state = 'running')
         order by j.id for update of j
    ),"""
    + jobs.END_OPEN
)


# What was asked for on the branch meanwhile goes to the main line, as what is asked again later does
# (baton_lane_again). A claim that is under way is waited for: it has its job, and then the project.
MOVE_ITS_JOBS = """
    update jobs set lane = 'main'
     where project_id = %s and lane = %s and state in ('queued', 'parked')"""
WORKED_ON = "select from jobs where project_id = %s and lane = %s and state = 'running'"


class BranchGone(HeadHeld):
    """The branch of the one that is to be taken was dropped."""


class BranchBusy(HeadHeld):
    """A job that somebody asked for runs on the branch of the one that is to be taken."""


def promote(conn: Connection, job: Claimed, racer: Racer, version: str, status: str) -> bool:
    """Make the head and the files of one of the race the project's, and a version of them; once.

    False, with nothing changed, when the attempt was replaced. Raises HeadHeld when the head is not
    the one that the race began from any more, and BranchGone or BranchBusy.
    """
    with conn.transaction():
        if not _hold(conn, job):
            return False
        found = conn.execute(
            "select promoted_at from branches where project_id = %s and lane = %s for update",
            (job.project_id, racer.lane),
        ).fetchone()
        if found is None:
            raise BranchGone("The branch is gone.")
        if found[0] is None:
            conn.execute(MOVE_ITS_JOBS, (job.project_id, racer.lane))
            if conn.execute(WORKED_ON, (job.project_id, racer.lane)).rowcount:
                raise BranchBusy("Somebody works on the branch.")
            _move(conn, job, racer, version, status)
    return True


def _move(conn: Connection, job: Claimed, racer: Racer, version: str, status: str) -> None:
    row = conn.execute(
        "select last_ai_session_id from projects where project_id = %s for no key update",
        (job.project_id,),
    ).fetchone()
    if row is None or row[0] != racer.from_session:
        raise HeadHeld("The main line has moved on.")
    assert racer.head
    conn.execute(
        PROMOTE,
        {
            "id": job.id,
            "project": job.project_id,
            "lane": racer.lane,
            "new": racer.head,
            "version": version,
            "tree": racer.tree,
            "status": status,
        },
    )
    to = Move(
        old=row[0],
        new=racer.head,
        parent=row[0],
        source="fork",
        reason="promoted",
        version_id=version,
        tree=racer.tree,
    )
    told: dict[str, Any] = {"old": row[0], "session": racer.head, "parent": row[0]}
    told |= {"source": "fork", "branch": racer.lane, "version": version}
    heads.move(conn, job.project_id, to, told)


# As when an operator promotes a branch; and its version is the race's own.
PROMOTE: LiteralString = (
    branches.JOIN
    + """, the_race as (
        update jobs set version_id = coalesce(version_id, %(version)s) where id = %(id)s
    ), known_version as (  -- the product may have made its row before
        update project_versions
           set tree = %(tree)s, ai_session_id = %(new)s, check_status = %(status)s,
               ai_session_created_at = coalesce(ai_session_created_at, now()),
               ai_session_last_used_at = now()
         where project_id = %(project)s and version_id = %(version)s
        returning version_id
    )
    insert into project_versions (project_id, version_id, tree, ai_session_id, check_status,
                                  ai_session_created_at, ai_session_last_used_at)
    select %(project)s, %(version)s, %(tree)s, %(new)s, %(status)s, now(), now()
     where not exists (select from known_version)"""
)
