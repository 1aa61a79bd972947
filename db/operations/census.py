"""What is counted of everything, a page at a time, by clean-up: no report counts it again.

A count goes through a table in the order of project ids (db/core/walks.py), over several runs if
need be. What a run writes down of it:

    so_far    of the count that is under way
    whole     the newest one that came to its end; `at` says when

Where all is in one page, a report counts that page, and is of now.
"""

from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import dict_row

from db.core.walks import Key, Walk
from db.operations import upkeep
from db.transcripts import listings, quota
from db.transcripts.listings import Held

Count = dict[str, Any]

PAGE = 1000  # projects
BIGGEST = 10  # projects of which it is told what they store
EXAMPLES = 20  # projects out of step that are named
NO_PROJECTS: Count = {"projects": 0, "ages": [0, 0, 0, 0], "out_of_sync": 0, "examples": []}
NO_TRANSCRIPTS: Count = {"sessions": 0, "bytes": 0, "biggest": []}


def of_projects(conn: Connection) -> Count | None:
    """How many there are, how old their heads are (up to 1 h, 24 h, 7 d, older), how many are out
    of step, and which, for example. None if they are many and were not counted yet. Counted just
    now, it has all `ids`, and no `at`."""
    now = _page_of_projects(conn, after="")
    return now if now["projects"] < PAGE else upkeep.noted(conn, "census").get("whole")


def of_transcripts(conn: Connection) -> Count | None:
    """How many sessions, how many bytes as appended, and the biggest projects (transcript_limit).
    None if they are many and were not counted yet."""
    held = listings.projects(conn, after="", limit=PAGE)
    if len(held) < PAGE:
        return _measured(conn, add_transcripts(NO_TRANSCRIPTS, held))
    return upkeep.noted(conn, "prune_transcripts").get("whole")


def count_projects(conn: Connection, before: Count, walk: Walk) -> Count:
    """Go on counting, with what the run `before` wrote down. Returns what is to be written now."""
    so_far: Count = before.get("so_far") or NO_PROJECTS

    def page(after: Key | None) -> tuple[int, Key | None]:
        nonlocal so_far
        found = _page_of_projects(conn, after=after[0] if after else "")
        so_far = {
            "projects": so_far["projects"] + found["projects"],
            "ages": [sum(both) for both in zip(so_far["ages"], found["ages"], strict=True)],
            "out_of_sync": so_far["out_of_sync"] + found["out_of_sync"],
            "examples": [*so_far["examples"], *found["examples"]][:EXAMPLES],
        }
        return 0, [found["last"]] if found["projects"] == PAGE else None

    walk.go(page)
    return noted(conn, before, so_far, walk)


def noted(conn: Connection, before: Count, so_far: Count, walk: Walk) -> Count:
    """What is to be written down after a run that came as far as the walk did."""
    if walk.after is None:
        at = conn.execute("select now()").fetchone()
        assert at
        return {"whole": so_far | {"at": at[0].isoformat()}}
    return {"so_far": so_far} | {name: before[name] for name in ("whole",) if name in before}


def add_transcripts(so_far: Count, held: Sequence[Held]) -> Count:
    """Count these projects too."""
    biggest = [*so_far["biggest"], *([one.project_id, one.bytes] for one in held)]
    return {
        "sessions": so_far["sessions"] + sum(one.sessions for one in held),
        "bytes": so_far["bytes"] + sum(one.bytes for one in held),
        "biggest": sorted(biggest, key=lambda one: one[1], reverse=True)[:BIGGEST],
    }


def transcripts_noted(conn: Connection, before: Count, so_far: Count, walk: Walk) -> Count:
    """As `noted`; of the biggest projects it is measured what they store."""
    return noted(conn, before, so_far if walk.after else _measured(conn, so_far), walk)


def _measured(conn: Connection, counted: Count) -> Count:
    sizes = quota.measured(conn, [project for project, _ in counted["biggest"]])
    return counted | {
        "biggest": [
            {"project_id": s.project_id, "sessions": s.sessions, "bytes": s.bytes, "stored": s.stored}
            for s in sizes
        ]
    }  # fmt: skip


def _page_of_projects(conn: Connection, *, after: str) -> Count:
    with conn.cursor(row_factory=dict_row) as cur:
        found = cur.execute(
            PROJECTS, {"after": after, "limit": PAGE, "examples": EXAMPLES}
        ).fetchone()
    assert found
    return found


PROJECTS: LiteralString = """
    with page as materialized (
        select project_id from projects
         where project_id > %(after)s order by project_id limit %(limit)s
    ), looked as (
        select s.project_id, s.sync_status = 'OUT_OF_SYNC' as off,
               now() - coalesce(m.last_used_at, s.last_ai_session_updated_at) as age
          from page join session_sync s using (project_id)
          left join project_ai_session_metrics m on m.session_id = s.last_ai_session_id
    )
    select count(*) as projects, coalesce(array_agg(project_id), '{}') as ids,
           max(project_id) as last,
           array[count(*) filter (where age <= interval '1 h'),
                 count(*) filter (where age > interval '1 h' and age <= interval '24 h'),
                 count(*) filter (where age > interval '24 h' and age <= interval '7 d'),
                 count(*) filter (where age > interval '7 d')] as ages,
           count(*) filter (where off) as out_of_sync,
           coalesce((array_agg(project_id order by project_id) filter (where off))
                    [1:%(examples)s], '{}') as examples
      from looked"""
