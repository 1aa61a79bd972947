"""The oldest schema becomes today's while the fleet of that time works on it: nobody waits long."""

from pathlib import Path
from shutil import copytree

import psycopg
import pytest

from db.core.migrate import FILES, migrate
from dev.bench.fill import Amount, fill
from tests.faults import old_fleet
from tests.faults.conftest import Tally
from tests.ledger import built, one
from tests.waiting import wait_until

LONGEST = 1.0  # seconds that anybody may wait
OLDEST = "0004"  # the last file without which there are no jobs
PROJECTS = {False: 200, True: 50_000}  # by whether this is the long run; 20 jobs each
RECENT = 20  # chains that the fleet ends after the last file, before it is sent home


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_oldest_schema_is_migrated_while_its_fleet_works_and_nobody_waits_a_second(
    empty_dsn: str, tmp_path: Path, tally: Tally, long: bool
):
    projects = PROJECTS[long]
    tally.fault = "a migration of the oldest schema, at work"
    tally.simulated = "the fleet: its statements, sent by threads"
    oldest = Path(copytree(FILES, tmp_path / "migrations"))
    for file in oldest.glob("*.sql"):
        if file.name[:4] > OLDEST:
            file.unlink()
    migrate(empty_dsn, files=oldest)
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        fill(conn, Amount(projects), modern=False)
        lines = list[str]()
        with old_fleet.at_work(empty_dsn) as seen:
            wait_until(lambda: seen.done > RECENT, description="the fleet works")
            assert migrate(empty_dsn, tell=lines.append)
            before = seen.done
            wait_until(
                lambda: seen.done > before + RECENT or seen.wrong,
                description="it works on the new schema",
            )
        assert seen.wrong == []
        assert seen.waited < LONGEST, lines
        job = built(conn, project="by-todays-release")
        assert one(conn, "select state from jobs where id = %s", job.id) == "done"
        assert not _lost(conn)
    took, name = seen.longest()
    tally.ran()
    tally.note = (
        f"{projects * 20} jobs; {seen.done} done and {seen.asked} asked for meanwhile; longest wait"
        f" for a lock {seen.waited:.2f} s, slowest statement {took:.2f} s ({name})"
    )


def _lost(conn: psycopg.Connection) -> list[str]:
    """What the migration was to fill in, and did not, of what the fleet had left before it."""
    rows = conn.execute(
        """
        select m.session_id from project_ai_session_metrics m
          join session_chain c on c.new_session_id = m.session_id
         where m.job_id in (select id from jobs where created_at < now() - interval '1 day')
           and (m.old_session_id is distinct from c.old_session_id or m.tree is null) limit 5
        """
    )
    return [session for (session,) in rows]
