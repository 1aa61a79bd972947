"""A job's commit, tried out before its first turn and taken back: where tables are the product's they
may have rules that nobody has told Baton of, and a turn costs money.

Its cost is that of one commit more (milliseconds, and rows that vacuum takes away), and the
product's triggers run; so it is done only where a table has a rule that is not Baton's (db/core/product_rules.py).
"""

from datetime import timedelta
from uuid import uuid4

from psycopg import Connection

from db.jobs.attempts import Claimed
from db.jobs.lanes import MAIN
from db.sessions import commits, turns
from db.sessions.commits import Advance

SOURCES = {"metadata": "metadata", "compaction": "compact", "chat_plan": "chat_plan"}
TREE = "0" * 40


def rehearse(conn: Connection, job: Claimed) -> None:
    """Raises what refusals.is_refused if a table would not take the job's commit. Nothing stays."""
    with conn.transaction(force_rollback=True):
        _commit(conn, job, minted=str(uuid4()))


def _commit(conn: Connection, job: Claimed, *, minted: str) -> None:
    if not turns.begin(conn, job, step=job.kind, parent=None, minted=minted, tries=[]):
        return  # the attempt was replaced
    version = job.version_id or str(job.chain_id)
    builds = job.kind == "build" and job.lane == MAIN
    to = Advance(
        step=job.kind,
        old=job.head,
        new=minted,
        parent=job.head,
        minted=minted,
        relation="forked" if job.head else "fresh",
        source=SOURCES.get(job.kind, "update" if job.head else "build"),
        version_id=version if builds else job.version_id,
        new_version=builds,
        tree=TREE if job.kind == "build" else None,
        chat=[("user", "-"), ("assistant", "-")],
        chat_plan=job.kind == "chat_plan",
    )
    commits.advance(conn, job, to, told=[], following=None, publish_after=timedelta(0))
    conn.execute("set constraints all immediate")
