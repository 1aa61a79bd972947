"""How long an agent has said nothing, beside how long its job has been running."""

import re
from datetime import timedelta

import pytest
import redis
from psycopg import Connection

from tests import ledger
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.commandline import baton as baton
from tests.conftest import Configure
from worker.live import progress
from worker.live.checkpoints import PROGRESS
from worker.reports import silence

NOWHERE = "redis://127.0.0.1:1/0"


def long_ago(conn: Connection, since: timedelta) -> ledger.Claimed:
    """A job that was claimed then."""
    job = ledger.begun(conn)
    conn.execute("update jobs set claimed_at = now() - %s", (since,))
    return job


def test_what_the_worker_noted_is_told_and_never_more_than_the_attempt_has_lasted(
    conn: Connection, configure: Configure, redis_url: str
):
    configure(REDIS_URL=redis_url)
    job = long_ago(conn, timedelta(minutes=10))
    progress.note_silence(job.id, 7.0)
    told = silence.of(conn, [job.id])[job.id]
    assert told.runs_s == pytest.approx(600, abs=5)
    assert told.silent_s == pytest.approx(7, abs=5)
    progress.note_silence(job.id, 5000.0)  # by the attempt before, which was killed
    told = silence.of(conn, [job.id])[job.id]
    assert told.silent_s == told.runs_s


def test_where_redis_does_not_tell_nothing_is_guessed(
    baton: Baton, conn: Connection, configure: Configure
):
    job = long_ago(conn, timedelta(minutes=10))
    for away in (NOWHERE, ""):
        ran = baton("jobs", REDIS_URL=away)
        assert re.search(r"on host for 10 m \d s$", ran.out.strip())
        (row,) = baton("jobs", "--json", REDIS_URL=away).document
        assert (row["id"], row["silent_s"]) == (str(job.id), None)
        assert baton("report", "health", REDIS_URL=away).code == 0


def test_it_is_told_wherever_a_running_job_is(baton: Baton, conn: Connection, redis_url: str):
    job = long_ago(conn, timedelta(minutes=10))
    with redis.Redis.from_url(redis_url.removesuffix("0") + str(PROGRESS)) as told:
        told.set(f"silent:{job.id}", "90", px=progress.NOTED)
    assert re.search(r"on host for 10 m \d s, silent for 1 m 3\d s", baton("jobs").out)
    assert re.search(r"silent for: 1 m 3\d s", baton("jobs", str(job.id)).out)
    assert re.search(r"silent for 1 m 3\d s", baton("project", "p").out)
    assert re.search(r"10 m \d s +1 m 3\d s", baton("report", "health").out)
    (row,) = baton("jobs", "--json").document
    assert (row["runs_s"], row["silent_s"]) == (
        pytest.approx(600, abs=9),
        pytest.approx(90, abs=9),
    )
