"""The roles of least right, in the processes that an operator runs."""

from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from db.core import roles
from db.live import keys
from dev.stack import fleet
from tests.acceptance.outside import Baton, baton_up
from tests.invariants import violations
from tests.machine import needs_pgbouncer
from tests.pooler import pgbouncer
from tests.roles import gone, login
from tests.waiting import wait_until
from worker.client import Build


def test_no_process_of_baton_up_has_the_owners_rights(baton: Baton):
    """Those of the test itself and of the screen are the owner's."""
    chain = baton.ask(Build(project=baton.project(), user="ann", prompt="say hello"))
    assert baton.ended(chain)["state"] == "done"
    of_the_fleet = "select count(*) from pg_stat_activity where usename = %s"
    assert baton.row(of_the_fleet, fleet.LOGIN)["count"] >= 3, "worker, relay and egress"
    may = baton.row(
        """
        select pg_has_role(rolname, 'baton_worker', 'usage') as works, rolsuper as super,
               has_schema_privilege(rolname, 'public', 'create') as creates
          from pg_roles where rolname = %s
        """,
        fleet.LOGIN,
    )
    assert may == {"works": True, "super": False, "creates": False}


@needs_pgbouncer
@pytest.mark.long
def test_all_of_baton_runs_as_a_worker_through_a_pooler_in_transaction_mode(
    dsn: str, tmp_path: Path
):
    """The chain, relay, beat, egress, gateway and a deletion: none is more than baton_worker."""
    own = login(dsn, roles.WORKER)
    (tmp_path / "up").mkdir()
    with (
        pgbouncer(own, tmp_path, size=8) as url,
        baton_up(tmp_path / "up", looks=dsn, DATABASE_URL=url, BATON_UPKEEP_EVERY="2") as baton,
    ):
        project = baton.project()
        first = baton.ask(Build(project=project, user="ann", prompt="write a.txt: hello"))
        assert baton.ended(first)["state"] == "done"
        key, _ = keys.create(baton.conn, "acme", "tests", ["jobs"])
        asked = httpx.post(
            f"{baton.up.web_url}/v1/jobs",
            json={"kind": "update", "project": project, "user": "ann", "prompt": "say hello"},
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=30,
        )
        assert asked.status_code == 202, asked.text
        assert baton.ended(asked.json()["id"])["state"] == "done"
        chain = [(job["kind"], job["state"]) for job in baton.jobs(project)]
        kinds = ("build", "metadata", "compaction") * 2
        assert chain == [(kind, "done") for kind in kinds]
        ticked = "select count(distinct name) as n from ticks"
        wait_until(lambda: baton.row(ticked)["n"] > 3, timeout=30, description="beat's ticks")
        assert violations(baton.conn) == []
        deleted = baton.cli("delete", "project", project, "--yes")
        assert deleted.returncode == 0, deleted.stderr
        assert baton.jobs(project) == []
        who = "select distinct usename from pg_stat_activity where datname = current_database()"
        assert {row["usename"] for row in baton.rows(who)} == {
            baton.row("select current_user as me")["me"],
            urlsplit(own).username,
        }
    gone(own, dsn)
