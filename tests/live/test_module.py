"""`baton-live.js` keeps its promises in Node, is typed, and installs from its package."""

import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.gateways import gateway
from tests.live.node import CHECKOUT, MODULES, needs_node, needs_packages, node
from tests.running import AtWork, P, U
from tests.running import at_work as at_work
from tests.waiting import wait_until
from worker.client import Update

HERE = Path(__file__).parent
PACKAGE = CHECKOUT / "clients" / "js"

UNDER_WAY = "select id from jobs where state = 'queued'"

pytestmark = [needs_node, needs_packages]


def test_the_states_the_cursor_and_the_outbox():
    files = sorted(HERE.glob("*.test.mjs"))
    assert files
    ran = node("--test", "--test-reporter=tap", *files)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# fail 0" in ran.stdout


def test_the_types_are_those_of_the_module(tmp_path: Path):
    made = node(
        *(MODULES / "typescript" / "bin" / "tsc", "-p", PACKAGE / "tsconfig.json"),
        *("--outDir", tmp_path),
    )
    assert made.returncode == 0, made.stdout
    ours = PACKAGE / "baton-live.d.ts"
    assert ours.read_text() == (tmp_path / ours.name).read_text(), "run `npm run types`"


@pytest.mark.agent("direct")
def test_installed_into_an_empty_project_it_talks_with_a_gateway(
    at_work: AtWork, dsn: str, redis_url: str, tmp_path: Path
):
    empty = _installed(tmp_path)
    files = {path.name for path in (empty / "node_modules" / "baton-live").iterdir()}
    assert files == {"package.json", "README.md", "baton-live.js", "baton-live.d.ts"}
    program = shutil.copy(HERE / "installed.mjs", empty)
    with gateway(dsn, redis_url, tmp_path / "web.log") as at:
        ran: dict[str, subprocess.CompletedProcess[str]] = {}
        talking = threading.Thread(
            target=lambda: ran.update(
                it=node("--experimental-websocket", program, URL=at.url, TICKET=at.ticket(P, U))
            )
        )
        talking.start()
        asked = wait_until(lambda: at_work.rows(UNDER_WAY), description="its message")
        at_work.chain_of(asked[0][0])
        asks = {"check": "echo broken; exit 3", "check_tries": 0, "on_check_failed": "ask"}
        job = at_work.ask(
            Update.model_validate({"project": P, "user": U, "prompt": "say done", **asks})
        )
        at_work.run(job)
        wait_until(lambda: at_work.job(job).state == "queued", description="its answer")
        at_work.run(job)
        talking.join()
    assert ran["it"].returncode == 0, ran["it"].stderr
    told = json.loads(ran["it"].stdout)
    assert told["said"] == ["user", "assistant", "user", "assistant", "check", "notice"]
    assert told["check"] == {"command": "echo broken; exit 3", "exit_status": 3}
    assert told["version"] == "failing"
    assert told["counts"] == {"doubles": 0, "holes": 0}
    assert at_work.job(job).error_class == "check_failed"


def _installed(root: Path) -> Path:
    """An empty Node project into which the package was installed from its file, without a network."""
    copy = shutil.copytree(PACKAGE, root / "clients" / "js")
    static = root / "gateway" / "static"
    static.mkdir(parents=True)
    shutil.copy(CHECKOUT / "gateway" / "static" / "baton-live.js", static)
    _npm(copy, "pack", "--silent")
    (package,) = copy.glob("*.tgz")
    empty = root / "empty"
    empty.mkdir()
    (empty / "package.json").write_text('{"private": true, "type": "module"}')
    _npm(empty, "install", "--offline", "--silent", "--no-audit", "--no-fund", str(package))
    return empty


def _npm(where: Path, *words: str) -> None:
    ran = subprocess.run(
        ["npm", *words], cwd=where, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
