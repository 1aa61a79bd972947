"""`baton bench resume`: what it costs to resume from Postgres and not from local disk.

    disk       the CLI, through the SDK, forks a session that lies in its own directory
    Postgres   a whole chat-plan job: claim, ladder, load, the CLI, every entry stored, commit

The CLI is the real one; the model is the stand-in, which takes no time to think, in a
process of its own; the transcripts are made up. Two figures a turn: until the model is
asked, which is the resuming, and until all is over, which for Postgres is the commit.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
from claude_agent_sdk import ClaudeAgentOptions, project_key_for_directory, query
from rich.table import Table

from config.settings import settings
from db.projects import projects
from dev.bench.egress import proxy
from dev.bench.history import MB, as_jsonl, history
from dev.bench.place import Place, at_place
from tasks.chat_plan import do_chat_plan
from worker.client import ChatPlan, enqueue
from worker.job.run import run
from worker.sandbox.leash import cli
from worker.session import recordings

TIMES = 5
SIZES = ((1, None), (10, None), (10, 1), (50, 1))  # MB, and how many since a compaction
WINDOW = 10**9  # tokens: the stand-in is to refuse no request as too long
QUESTION = "what do you remember?"

Took = tuple[float, float]  # seconds until the model was asked, and until all was over


def main(root: Path) -> int:
    """Print the figures."""
    return at_place(root, _tell)


def _tell(place: Place) -> None:
    with model(place.path) as url:
        place.enter(url)
        with proxy():
            place.console.print(_table(place.path))


@contextmanager
def model(place: Path) -> Generator[str]:
    """The URL of a stand-in that does not share our processor time."""
    ready = place / "model-url"
    options = ["--scenario", "plain", "--speed", "0", "--limit", str(WINDOW)]
    with subprocess.Popen(
        [sys.executable, "-m", "dev.standin", *options, "--ready-file", str(ready)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            while not ready.exists() and process.poll() is None:
                time.sleep(0.05)
            yield ready.read_text().strip()
        finally:
            process.terminate()


def _table(place: Path) -> Table:
    table = Table(title=f"A turn on a fork, seconds, median (min to max) of {TIMES}")
    for column in (
        *("transcript", "model asked: disk", "Postgres", "more"),
        *("turn over: disk", "Postgres", "more"),
    ):
        table.add_column(column)
    for size, behind in SIZES:
        told = f"{size} MB" + (f", {behind} MB of it since a compaction" if behind else "")
        pairs = _pairs(place / f"{size}-{behind}", size * MB, behind)
        table.add_row(told, *_columns(pairs, 0), *_columns(pairs, 1))
    return table


def _columns(pairs: list[tuple[Took, Took]], which: int) -> list[str]:
    disk, postgres = [a[which] for a, _ in pairs], [b[which] for _, b in pairs]
    more = statistics.median(postgres) - statistics.median(disk)
    return [_spread(disk), _spread(postgres), f"{more:.2f}"]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _pairs(place: Path, size: int, behind: int | None) -> list[tuple[Took, Took]]:
    """The same session forked from disk and from Postgres, in turns."""
    session = str(uuid4())
    folder, config = place / "workspace", place / "config"
    file = config / "projects" / project_key_for_directory(folder) / f"{session}.jsonl"
    for path in (folder, file.parent):
        path.mkdir(parents=True)
    file.write_text(as_jsonl(history(session, size, behind=behind * MB if behind else None)))
    project = f"bench-{session}"
    pairs = list[tuple[Took, Took]]()
    with psycopg.connect(settings().database_url.get_secret_value(), autocommit=True) as conn:
        recordings.import_session(conn, project, file, user_id="bench", session=None, head=True)
        for _ in range(TIMES):
            disk = _took(lambda: asyncio.run(_from_disk(folder, config, session)))
            pairs.append((disk, _took(lambda: _from_postgres(conn, project))))
            projects.rewind(conn, project, session)  # the same one again, and not its fork
    return pairs


def _took(turn: Callable[[], object]) -> Took:
    log = f"{settings().anthropic_base_url}/_standin/requests"
    before = len(httpx.get(log, trust_env=False).json())
    began, clock = time.time(), time.perf_counter()
    turn()
    over = time.perf_counter() - clock
    asked = httpx.get(log, params={"since": before}, trust_env=False).json()[0]["at"] - began
    return asked, over


def _from_postgres(conn: psycopg.Connection, project: str) -> None:
    chat = ChatPlan(project=project, user="bench", prompt=QUESTION)
    ran = run(enqueue(conn, chat).id, do_chat_plan)
    if ran.state != "done":
        raise SystemExit(f"The turn came to nothing: {ran.error}")


async def _from_disk(folder: Path, config: Path, session: str) -> None:
    options = ClaudeAgentOptions(
        cli_path=cli(),
        cwd=folder,
        resume=session,
        fork_session=True,
        session_id=str(uuid4()),
        setting_sources=[],
        permission_mode="dontAsk",
        env={
            "CLAUDE_CONFIG_DIR": str(config),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
    )
    async for _ in query(prompt=QUESTION, options=options):
        pass
