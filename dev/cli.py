"""The console script: the product's commands, and those that run it here (up, demo, bench).

Any command finds the services that `baton up` runs here, in this checkout or in the directory
where an installed Baton is called: their addresses are put into the environment before the
settings are read. The product's commands need nothing but what Baton itself depends on.
"""

import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dev.stack.procfile import checkout
from worker.cli import app
from worker.cli import main as run
from worker.cli.console import PLUGINS

if TYPE_CHECKING:
    from config.settings import Settings
    from dev.stack.noted import Services

OWN = ("up", "demo", "bench")  # these start services themselves


def main() -> int:
    """Run the command that the arguments name; the exit code."""
    return run(prepare=_prepare)


@app.command()
def up() -> None:
    """Run Baton here: every process it needs, until Ctrl-C."""
    _hand_over("dev.stack.up")


@app.command()
def demo() -> None:
    """Build a small site, update it, ask about it."""
    _hand_over("dev.demo.demo")


Measured = Literal[
    "throughput",
    "storage",
    "resume",
    "repository",
    "scale",
    "live",
    "voice",
    "egress",
    "box",
    "cost",
    "study",
    "reckoned",
    "turns",
    "repairs",
    "processes",
]


@app.command()
def bench(
    of: Annotated[Measured, typer.Argument()] = "throughput",
    projects: Annotated[
        int, typer.Option(min=1, help="Of the large ledger of `scale`; 20 jobs each.")
    ] = 100_000,
    updates: Annotated[
        int,
        typer.Option(
            min=1, max=50, help="Of each cell of `study`, and of each sample of `repairs`."
        ),
    ] = 4,
    gaps: Annotated[str, typer.Option(help="Of `study`: 1m, 10m, 2h, 1d, by commas.")] = "",
    policies: Annotated[str, typer.Option(help="Of `study`: by commas; all by default.")] = "",
    task: Annotated[
        Literal["few", "many"], typer.Option(help="Files that an update of `study` needs.")
    ] = "few",
    minutes: Annotated[
        int, typer.Option(min=1, help="Then `study` begins no other cell.")
    ] = 600,
) -> None:
    """Measure throughput and latency; what transcripts, and files, take up; what a resume costs;
    what grows with the ledger; what a gateway carries; what the relay of voice adds to a piece of audio, the egress
    proxy to a request, and a box to a turn; what a chain weighs in tokens, leg by leg; what updates cost by how
    sessions are gone on from, and what it costs to mend what a check found; what each process takes."""
    more: dict[str, Any] = {"projects": projects} if of == "scale" else {}
    if of == "study":
        more = {"updates": updates, "gaps": gaps, "policies": policies}
        more |= {"task": task, "minutes": minutes}
    if of == "repairs":
        more = {"updates": updates}
    _hand_over("dev.bench.chains" if of == "throughput" else f"dev.bench.{of}", **more)


def _hand_over(module: str, **more: Any) -> None:
    """Run the module's main with the folder of our data; it imports what is slow to import. The
    processes that it begins are not commands."""
    os.environ.pop(PLUGINS, None)
    raise typer.Exit(import_module(module).main(_home(), **more))


def _home() -> Path:
    return checkout() or Path.cwd()


def _prepare(command: str) -> None:
    if top := checkout():
        _enter(top)
    if command in OWN:
        return
    model = _find_services(_home())
    if model and command == "enqueue":
        from dev.stack.environment import STORY

        print(f"The model here is a stand-in: {STORY}.", file=sys.stderr)


def _enter(top: Path) -> None:
    """Inside the checkout all folders are as good as its top: `.env` and `.baton` lie there."""
    here, real = Path.cwd(), top.resolve()  # it may have been installed by way of a link
    if here.is_relative_to(real) and not here.is_relative_to(real / ".baton"):
        os.chdir(top)


def _find_services(home: Path) -> str | None:
    """Use what `baton up` runs here, unless the settings name another database.

    The address of the stand-in, if that is the model there.
    """
    if not (home / ".baton" / "services.json").exists():
        return None
    from config.settings import STANDIN_KEY, BadSettings, settings  # slow to import
    from dev.stack.noted import find

    found = find(home)
    try:
        given = settings()
    except BadSettings:
        return None  # the command will say so
    if found is None or given.database_url.get_secret_value() not in ("", found.database_url):
        return None
    fill = {"DATABASE_URL": found.database_url}
    if not given.redis_url:
        fill["REDIS_URL"] = found.redis_url
        if found.plain_broker_url and not given.plain_broker_url:
            fill["BATON_PLAIN_BROKER_URL"] = found.plain_broker_url
    if found.flower_url and not given.flower_url:
        fill["BATON_FLOWER_URL"] = found.flower_url
    if found.web_url:
        fill |= _gateway(home, given, found)
    model = found.model_url  # of the stand-in, where it runs
    if model and not given.anthropic_base_url and not given.anthropic_api_key:
        fill |= {"ANTHROPIC_BASE_URL": model, "ANTHROPIC_API_KEY": STANDIN_KEY}
    fill |= _as_there(home, given.model_fields_set, unboxed=found.unboxed)
    os.environ.update(fill)
    settings.cache_clear()
    return model or None


def _as_there(home: Path, chosen: set[str], *, unboxed: bool) -> dict[str, str]:
    """What the workers of `baton up` have by default, unless somebody has chosen."""
    there = {
        "workspaces": str(home / ".baton" / "workspaces"),
        "agent_home": str(home / ".baton" / "agent"),
        **({"sandbox": "off"} if unboxed else {}),
    }
    return {f"BATON_{name.upper()}": at for name, at in there.items() if name not in chosen}


def _gateway(home: Path, given: "Settings", found: "Services") -> dict[str, str]:
    """Where the gateway is, and the secret that its tickets are signed with (dev/stack/web.py)."""
    fill = dict[str, str]()
    if not given.web_url:
        fill["BATON_WEB_URL"] = found.web_url
    if not given.secret:
        with suppress(OSError):  # another's, or not yet made
            fill["BATON_SECRET"] = (home / ".baton" / "secret").read_text().strip()
    return fill


if __name__ == "__main__":
    sys.exit(main())
