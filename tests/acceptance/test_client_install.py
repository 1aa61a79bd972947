"""baton-client from its wheel, in a service that has packages of its own named as Baton's are."""

from pathlib import Path

import psycopg
import pytest

from tests.installed import Installed, install_client

SERVICE = """
import sys
import config, db, tasks  # its own
from baton_client import Build, enqueue
import psycopg

assert config.NAME == db.NAME == tasks.NAME == "the service's"
with psycopg.connect(sys.argv[1]) as conn:
    print(enqueue(conn, Build(project="shop", user="ann", prompt="go", key="order-17")).id)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"worker", "celery", "redis", "structlog", "claude_agent_sdk"}, loaded
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_client(tmp_path_factory.mktemp("client"))


def test_a_service_with_packages_of_its_own_by_batons_names_asks_for_a_job(
    environment: Path, tmp_path: Path, dsn: str, conn: psycopg.Connection
):
    for name in ("config", "db", "tasks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('NAME = "the service\'s"\n')
    (tmp_path / "service.py").write_text(SERVICE)
    done = Installed(environment, tmp_path).run("python", "service.py", dsn)
    assert (done.returncode, done.stderr) == (0, "")
    row = conn.execute("select id::text from jobs where key = 'order-17'").fetchone()
    assert row == (done.stdout.strip(),)
