"""Three jobs of Procrastinate, each of which defers the next."""
# pyright: basic, reportMissingImports=false
# (it is installed by the extra `bench` only)

import os
import subprocess
import sys

import procrastinate
import psycopg

from dev.bench.peers import marks

NAMES = ("build", "metadata", "compaction")
app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(
        conninfo=os.environ["BENCH_DB"], min_size=1, max_size=6
    )
)


def _made(number: int):
    @app.task(name=NAMES[number], queue="bench")
    async def step(session: str | None = None) -> None:  # noqa: ARG001 - handed on
        new = marks.step()
        if number + 1 < len(NAMES):
            following = app.configure_task(NAMES[number + 1], queue="bench")
            await following.defer_async(session=new)

    return step


for _number in range(len(NAMES)):
    _made(_number)


def _provide() -> None:
    """Make its tables, unless a repetition before has made them."""
    with psycopg.connect(os.environ["BENCH_DB"]) as conn:
        found = conn.execute("select to_regclass('procrastinate_jobs')").fetchone()
    if found and found[0] is None:
        command = [sys.executable, "-m", "procrastinate", f"--app={__name__}.app"]
        subprocess.run([*command, "schema", "--apply"], check=True, capture_output=True)


def ask(chains: int) -> None:
    """Ask for so many chains."""
    _provide()
    with app.open():
        first = app.configure_task("build", queue="bench")
        for _ in range(chains):
            first.defer()


if __name__ == "__main__":
    ask(int(sys.argv[1]))
