"""What follows what in a chain: a build, then its metadata, then a compaction."""

from uuid import uuid4

from db.jobs.attempts import Claimed
from db.jobs.jobs import Job
from db.jobs.lanes import Next

FOLLOWING = {"build": "metadata", "metadata": "compaction"}
HANDED_DOWN = ("asked", "model", "budget")  # of a job's arguments, to the next of its chain


def following_of(job: Claimed | Job) -> Next | None:
    """The chain's next job: a build is followed by metadata, and that by a compaction. (Nothing
    follows one of a race, but the race itself.)"""
    kind = FOLLOWING.get(job.kind)
    if (
        kind is None
        or "racer" in job.args
        or job.args.get("asked") not in ("build", "update", "repair")
    ):
        return None
    return Next(uuid4(), kind, {k: job.args[k] for k in HANDED_DOWN if k in job.args})


def despite_failure(job: Claimed | Job) -> Next | None:
    """What follows a job that came to nothing: only a failed build ends its chain."""
    return following_of(job) if job.kind == "metadata" else None
