"""What the agent finds of this host's files in its box, as arguments of bubblewrap.

    /                                   read only
    HOME, .baton, every workspace and
    agent directory, /tmp, secrets, a
    remote of workspaces on this host   empty, but for programs on PATH; what is written there
                                        is gone with the turn
    the project's own workspace         as outside; read only in a turn that only reads
    the turn's own directory            the CLI's configuration and temporary files

Every place is the resolved one: where a directory of ours is a link, or lies behind one, the
box has the link as it is, and shows what it leads to. An agent of another uid than the worker's
could not come through a directory that is closed to it: such a one is made like those above.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from stat import S_IXOTH

from config.settings import settings
from worker.workspace import transport

ROOT = Path("/")
TMP = Path("/tmp")  # noqa: S108 - hidden, not used
SECRETS = (Path("/run/secrets"), Path("/var/run/secrets"))  # where containers are given them
OURS = Path(".baton")  # what `baton up` keeps in a checkout: Postgres, Redis, every workspace
SETTINGS_FILE = Path(".env")
WITH_KEYS = (".local", ".cargo")
OPEN = ("--perms", "1777")  # who makes the box may be another than who works in it


def layout(
    workspace: Path, *, own: Path, cli: Path, writable: bool, another: bool
) -> list[str]:
    """The files of a box; `another` says that it is another's than the worker's, by uid.

    `own` is the turn's own directory; it and the workspace are resolved, and there.
    """
    private, masked = _private(), SETTINGS_FILE.resolve()
    tools = [*_around_the_cli(cli), *_on_path({*private, masked})]
    closed = _closed((own, workspace, *tools)) if another else set[Path]()
    hidden = _outermost(private | closed)
    shown = _shown(tools, hidden)
    again = [place for each in sorted(private) for place in _seen_in(shown, each)]
    empty = [*hidden, *again]
    opened = OPEN if another else ()
    words = ["--ro-bind", "/", "/"]
    for place in hidden:
        words += (*opened, "--tmpfs", str(place))
    for place, tool in shown.items():
        words += (*_way_to(place, hidden, opened), "--ro-bind", str(tool), str(place))
    for place in again:
        words += (*opened, "--tmpfs", str(place))
    if os.path.isfile(masked):  # noqa: PTH113 - closed to us: False
        for place in (*_seen_in(shown, masked), *([] if _in(masked, hidden) else [masked])):
            words += ("--ro-bind", os.devnull, str(place))
    if _in(home := Path.home().resolve(), empty):  # to be there, if empty
        words += (*_way_to(home, empty, opened), *opened, "--dir", str(home))
    for place, bind in ((own, "--bind"), (workspace, "--bind" if writable else "--ro-bind")):
        words += (*_way_to(place, empty, opened), bind, str(place), str(place))
    return [*words, "--chdir", str(workspace)]


def _private() -> set[Path]:
    """Directories that no agent is to look into; ours are there when the box starts."""
    ours = (settings().workspaces, settings().agent_home)
    remote = transport.folder()
    more = (OURS.absolute(), TMP, Path.home(), *SECRETS, *((remote,) if remote else ()))
    return {path.resolve() for path in (*ours, *filter(os.path.isdir, more))} - {ROOT}


def _closed(needed: Iterable[Path]) -> set[Path]:
    """The outermost directory on the way to each that is not open to everybody."""
    found = set[Path]()
    for path in needed:
        ways = (each for each in reversed(path.resolve().parents) if each.is_dir())
        found.update(islice((each for each in ways if not each.stat().st_mode & S_IXOTH), 1))
    return found - {ROOT}


def _around_the_cli(cli: Path) -> list[Path]:
    """The directory of the agent's program; where that is a link, also of what it leads to."""
    return [cli.parent, cli.resolve().parent]


def _on_path(private: set[Path]) -> Iterator[Path]:
    """Programs on PATH with what lies around them (`~/.pyenv` for `~/.pyenv/shims`), unless keys
    or places of ours are known to lie there too."""
    for folder in map(Path, os.get_exec_path()):
        if folder.is_absolute() and os.path.isdir(folder):  # noqa: PTH112 - closed to us: False
            around = folder.parent.resolve()
            alone = around.name in WITH_KEYS or any(
                around in (each, *each.parents) for each in private
            )
            yield folder if alone else folder.parent


def _outermost(places: set[Path]) -> list[Path]:
    return sorted(place for place in places if not _in(place, places))


def _in(place: Path, folders: Iterable[Path]) -> bool:
    return any(folder in place.parents for folder in folders)


def _shown(tools: list[Path], hidden: list[Path]) -> dict[Path, Path]:
    """What is shown of hidden directories: where the box has it, and what it is."""
    places = {place: tool for tool in tools if _in(place := _seen(tool, hidden), hidden)}
    return {place: places[place] for place in sorted(places) if not _in(place, places)}


def _seen_in(shown: dict[Path, Path], path: Path) -> list[Path]:
    """Where the box would have this path because it lies in what is shown."""
    real = {place: tool.resolve() for place, tool in shown.items()}
    return [
        place / path.relative_to(tool)
        for place, tool in real.items()
        if tool in (path, *path.parents)
    ]


def _seen(path: Path, hidden: list[Path]) -> Path:
    """Where the box has this path: it has links as outside, but none in what is hidden."""
    here, ahead = ROOT, list(path.parts[1:])
    while ahead:
        step = here / ahead.pop(0)
        if step.is_symlink() and not _in(step, hidden):
            leads = step.readlink()
            ahead = [*leads.parts[leads.is_absolute() :], *ahead]
            here = ROOT if leads.is_absolute() else here
        else:
            here = here.parent if step.name == ".." else step
    return here


def _way_to(place: Path, empty: list[Path], opened: tuple[str, ...]) -> list[str]:
    """What makes the directories that lead to a place in an empty one: bubblewrap would make
    them for itself alone."""
    if not opened:
        return []
    missing = [each for each in reversed(place.parents) if _in(each, empty)]
    return [word for each in missing for word in (*opened, "--dir", str(each))]
