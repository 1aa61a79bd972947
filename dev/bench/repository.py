"""`baton bench repository`: what a chain of turns takes up in a workspace's repository, before
upkeep has packed it and after, and how long that takes.

No service is needed: git alone, with the steps that a turn takes. The files are made up, of
lines that look like code; each turn edits a line in a few of them and writes a new one.
"""

import random
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from worker.workspace import refs
from worker.workspace.repository import Repository

PROJECTS = ((100, 10_000), (1000, 10_000))  # files, bytes of each
TURNS = 100
EDITED = 5  # files that a turn edits
WORDS = [f"{one}_{other}" for one in ("get", "set", "find", "make") for other in "abcdefghij"]


def main(root: Path) -> int:
    """Print the figures; data lies in a directory of its own that is removed again."""
    console = Console(highlight=False)
    (root / ".baton").mkdir(exist_ok=True)
    table = Table(
        title=f"{TURNS} turns that edit {EDITED} files and write one; bytes on the disk"
    )
    for column in ("project", "before upkeep", "after", "of it", "upkeep took"):
        table.add_column(column)
    for files, size in PROJECTS:
        with tempfile.TemporaryDirectory(dir=root / ".baton", prefix="bench-") as place:
            table.add_row(
                f"{files} files, {files * size / 1e6:.0f} MB", *_row(Path(place), files, size)
            )
    console.print(table)
    return 0


def _row(place: Path, files: int, size: int) -> list[str]:
    chance = random.Random(1)
    workspace = place / "files"
    workspace.mkdir()
    trees = Repository(place / "files.git", workspace)
    trees.create()
    for number in range(files):
        (workspace / f"{number}.py").write_text(_text(chance, size))
    for number in range(TURNS):
        _turn(trees, chance, f"new{number}.py", size)
    before = _stored(trees.git_dir)
    began = time.perf_counter()
    trees.pack()
    took, after = time.perf_counter() - began, _stored(trees.git_dir)
    return [
        *(f"{n / 1e6:.1f} MB" for n in (before, after)),
        f"1/{before / after:.0f}",
        f"{took:.1f} s",
    ]


def _turn(trees: Repository, chance: random.Random, new: str, size: int) -> None:
    attempt, head = str(uuid4()), trees.ref(refs.HEAD)
    begun = trees.snapshot("as found", parent=head)
    trees.point(f"{refs.BEGUN}/{attempt}", begun)
    for file in chance.sample(sorted(trees.path.iterdir()), EDITED):
        lines = file.read_text().splitlines(keepends=True)
        lines[chance.randrange(len(lines))] = _line(chance)
        file.write_text("".join(lines))
    (trees.path / new).write_text(_text(chance, size))
    commit = trees.snapshot("turn", parent=head)
    trees.point(f"{refs.MADE}/{attempt}", commit)
    refs.confirm(trees, attempt, commit)


def _text(chance: random.Random, size: int) -> str:
    lines, length = list[str](), 0
    while length < size:
        lines.append(_line(chance))
        length += len(lines[-1])
    return "".join(lines)


def _line(chance: random.Random) -> str:
    words = chance.choices(WORDS, k=3)
    return f"    {words[0]} = {words[1]}({words[2]}, {chance.randrange(1000)})\n"


def _stored(place: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in place.rglob("*"))
