"""Projects and their versions, as producers and operators look at them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import class_row, dict_row

from db.core import events, product_rules
from db.core.events import Event
from db.jobs.attempts import Claimed
from db.projects import heads
from db.projects.heads import HeadHeld, Move, hold_head


@dataclass(frozen=True, slots=True)
class Project:
    """A project with its head: the session that the next job resumes."""

    project_id: str
    user_id: str
    workspace: str | None
    last_ai_session_id: str | None
    last_ai_session_updated_at: datetime | None
    event_seq: int
    fresh_next: bool
    workspace_tree: str | None  # the git commit that its next job begins on


@dataclass(frozen=True, slots=True)
class Place:
    """Where a project has its files, whether the ledger has files of it (`kept`), and its head."""

    workspace: str | None
    kept: bool
    head: str | None


@dataclass(frozen=True, slots=True)
class Version:
    """One build of a project with its session."""

    version_id: str
    project_id: str
    status: str
    tree: str | None
    ai_session_id: str | None
    ai_session_created_at: datetime | None
    ai_session_last_used_at: datetime | None
    created_at: datetime
    check_status: str = "unchecked"  # passing, failing: what its newest check came to


def get(conn: Connection, project_id: str) -> Project | None:
    """The project, or None if it is unknown."""
    with conn.cursor(row_factory=class_row(Project)) as cur:
        return cur.execute(
            """
            select project_id, user_id, workspace, last_ai_session_id,
                   last_ai_session_updated_at, event_seq, fresh_next, workspace_tree
              from projects where project_id = %s
            """,
            (project_id,),
        ).fetchone()


# The place of a user's project, if it is there.
PLACE_OF: LiteralString = """
    select workspace, workspace_tree is not null as kept, last_ai_session_id as head
      from projects where project_id = %s and user_id = %s"""


def place_refused(conn: Connection, project_id: str, below: str, roots: list[str]) -> bool:
    """Whether the path below the root of workspaces is another project's place, inside one, or
    around one. `roots` are the root's spellings on this host."""
    row = conn.execute(
        "select baton_place_refused(%s, %s, %s)", (project_id, below, roots)
    ).fetchone()
    return bool(row and row[0])


def looked_at(
    conn: Connection, project_id: str, below: str, roots: list[str]
) -> tuple[bool, bool]:
    """As `place_refused`, and whether a table has a strange rule, in one statement."""
    row = conn.execute(
        "select baton_place_refused(%(project)s, %(below)s, %(roots)s), ("
        + product_rules.STRANGE
        + ")",
        {"project": project_id, "below": below, "roots": roots, **product_rules.ASKED},
    ).fetchone()
    assert row
    return row[0], row[1]


def unknown(conn: Connection, projects: Sequence[str]) -> list[str]:
    """Those of the ids that are no project's."""
    rows = conn.execute(
        """
        select given from unnest(%s::text[]) given
         where not exists (select from projects where project_id = given)
        """,
        (list(projects),),
    )
    return [project_id for (project_id,) in rows]


def latest_version(conn: Connection, project_id: str) -> Version | None:
    """The project's newest version, with its session; None before the first build."""
    return next(iter(versions(conn, project_id, limit=1)), None)


def versions(conn: Connection, project_id: str, *, limit: int | None = None) -> list[Version]:
    """The project's versions, the newest first."""
    with conn.cursor(row_factory=class_row(Version)) as cur:
        return cur.execute(
            """
            select version_id, project_id, status, tree, ai_session_id, ai_session_created_at,
                   ai_session_last_used_at, created_at, check_status
              from project_versions
             where project_id = %s and version_id is not null
             order by created_at desc, id desc limit %s
            """,
            (project_id, limit),
        ).fetchall()


def has_tree(conn: Connection, project_id: str, tree: str) -> bool:
    """Whether a turn of the project was committed with this git commit as its workspace."""
    row = conn.execute(
        """
        select exists (select from session_transitions
                        where project_id = %(project)s and tree = %(tree)s)
            or exists (select from session_transitions_archive
                        where project_id = %(project)s and tree = %(tree)s)
            or exists (select from project_versions
                        where project_id = %(project)s and tree = %(tree)s)
            or exists (select from branches
                        where project_id = %(project)s and %(tree)s in (tree, from_tree))
            or exists (select from project_ai_session_metrics
                        where project_id = %(project)s and tree = %(tree)s)
        """,
        {"project": project_id, "tree": tree},
    ).fetchone()
    return bool(row and row[0])


def session_chain(conn: Connection, project_id: str) -> list[dict[str, Any]]:
    """Every move of the project's head, newest first, archived ones too."""
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(
            "select * from session_chain where project_id = %s order by id desc", (project_id,)
        ).fetchall()


def begin_fresh(conn: Connection, project_id: str) -> None:
    """Let the project's next turn begin a fresh session, the past retold. Raises HeadHeld."""
    done = conn.execute(
        "update projects set fresh_next = true where project_id = %s", (project_id,)
    )
    if not done.rowcount:
        raise HeadHeld(
            f"Project {project_id} is unknown: see `baton report sync` for the known ones."
        )


def rewind(conn: Connection, project_id: str, session_id: str) -> str | None:
    """Move the head back to an earlier session of the project, as an operator.

    Returns the git commit to which the workspace goes back with it, now or when the next
    job begins; None: that session's is not known, and the files stay. Raises HeadHeld, with
    nothing changed, when a chain is under way, or the session was never a head of this project,
    is another user's than the project, or cannot be resumed.
    """
    with conn.transaction():
        head = hold_head(conn, project_id)
        return move_back(conn, project_id, session_id, head=head, reason="rewind")


def move_back(
    conn: Connection, project_id: str, session_id: str, *, head: str | None, reason: str
) -> str | None:
    """Move the head, which the caller's transaction holds, back to an earlier session; returns
    its git commit, as `rewind` does. Raises HeadHeld."""
    known = conn.execute(
        """
        select m.is_resumable, c.version_id, c.tree, coalesce(m.user_id = p.user_id, true)
          from (select id, project_id, new_session_id, version_id, tree
                  from session_transitions
                 union all
                select id, project_id, new_session_id, version_id, tree
                  from session_transitions_archive) c
          join project_ai_session_metrics m on m.session_id = c.new_session_id
          join projects p on p.project_id = c.project_id
         where c.project_id = %s and c.new_session_id = %s order by c.id desc limit 1
        """,
        (project_id, session_id),
    ).fetchone()
    if known is None:
        raise HeadHeld("That session was never a head of this project: see `baton chain`.")
    resumable, version, tree, is_theirs = known
    if not resumable:
        raise HeadHeld("That session cannot be resumed: choose another of `baton chain`.")
    if not is_theirs:
        raise HeadHeld(
            "That session is another user's than the project: choose another of `baton chain`."
        )
    conn.execute(
        """
        update project_versions set ai_session_id = %s, ai_session_last_used_at = now()
         where project_id = %s and version_id = %s
        """,
        (session_id, project_id, version),
    )
    to = Move(
        old=head,
        new=session_id,
        parent=session_id,
        source="operator",
        reason=reason,
        version_id=version,
        tree=tree,
    )
    told = {"old": head, "session": session_id, "source": "operator", "tree": tree}
    heads.move(conn, project_id, to, told | ({"reason": reason} if reason != "rewind" else {}))
    return tree


def take_back(conn: Connection, job: Claimed, session_id: str) -> str | None:
    """Move the head of the main line back to what it was before the job, which runs; as `rewind`.
    Raises HeadHeld, with nothing changed, when that cannot be, or the attempt was replaced."""
    with conn.transaction():
        held = conn.execute(
            "select from jobs where id = %s and attempt = %s and state = 'running' for update",
            (job.id, job.attempt),
        ).fetchone()
        if held is None:
            raise HeadHeld("The job was taken over.")
        conn.execute(
            "select from projects where project_id = %s for no key update", (job.project_id,)
        )
        return move_back(conn, job.project_id, session_id, head=job.head, reason="check_failed")


def import_files(
    conn: Connection, project_id: str, *, user_id: str, workspace: str, version: str, tree: str
) -> None:
    """Make the project, with files that it did not make itself as its first version.

    Raises HeadHeld, or an error of baton_enqueue's (db/core/codes.py), with nothing written,
    unless the project is new, or is this user's and has no version and no work.
    """
    with conn.transaction():
        check_import(conn, project_id, user_id=user_id, version=version)
        conn.execute("select baton_create_project(%s, %s, null)", (project_id, user_id))
        hold_head(conn, project_id)
        check_import(conn, project_id, user_id=user_id, version=version)
        conn.execute(
            """
            with the_project as (
                update projects set workspace = coalesce(workspace, %(place)s),
                       workspace_tree = %(tree)s where project_id = %(project)s
            )
            insert into project_versions (project_id, version_id, status, tree)
            values (%(project)s, %(version)s, 'imported', %(tree)s)
            """,
            {"project": project_id, "place": workspace, "version": version, "tree": tree},
        )
        told = Event("project.imported", None, {"version": version, "tree": tree})
        events.append(conn, project_id, [told])


def check_import(conn: Connection, project_id: str, *, user_id: str, version: str) -> None:
    """Raises as `import_files` does, and writes nothing."""
    row = conn.execute(
        """
        select exists (select from project_versions
                        where project_id = %(project)s and version_id is not null),
               exists (select from jobs where project_id = %(project)s
                                          and finished_at is null)
        """,
        {"project": project_id},
    ).fetchone()
    built, busy = row or (False, False)
    for check in (
        "select baton_check_name('The project id', %(project)s, 'project')",
        "select baton_check_user(%(user)s, operator => true)",
        "select baton_check_project('build', %(project)s, %(user)s, null)",
        "select baton_check_lengths('build', %(project)s, %(user)s, %(version)s)",
        "select baton_check_version('build', %(project)s, %(version)s)",
    ):
        conn.execute(check, {"project": project_id, "user": user_id, "version": version})
    if built:
        raise HeadHeld(f"Project {project_id} has versions already: import into a new project.")
    if busy:
        raise HeadHeld(f"Project {project_id} has work to do: wait for it, or cancel it first.")
