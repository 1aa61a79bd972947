"""Workspaces as no one would make them, made up at random: `python -m tests.faults.nasty 100 7`.

Each is kept, changed and kept again. Nothing of it may raise; what is kept comes back elsewhere
byte for byte, and all else is named. Run it without CAP_DAC_OVERRIDE (tests/machine.py): root
reads whatever its mode.
"""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from worker.workspace import reading, removal
from worker.workspace.trees import Kept, Trees

NO_FILE = {"pipe", "socket", "device", "name"}
NEVER = {
    "repository",
    "refused",
}  # where nothing changes meanwhile; git refuses one kind of link
LINK = ".gitmodules"
REPOSITORY, IGNORED = ".git", "ignored"
GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@y", "-c", "init.defaultBranch=main")
CONTENT = {  # what stands in files that git reads
    ".gitignore": b"ignored\n",
    ".gitattributes": b"* text eol=crlf ident filter=evil working-tree-encoding=UTF-16\n",
}
NAMES = st.sampled_from(
    [
        *(
            "a",
            "b",
            "app",
            "app",
            "app",
            IGNORED,
            "node_modules",
            ".hidden",
            "n" * 255,
            "-rf *",
        ),
        *("ü", "a\nb", "\udcff", "a\\b", ":(glob)**", "sp ", "[x]", "!a", "#c"),
        *(".GIT", "git~1", ".g\u200cit", ".git ", "x\\.git", ".gitmodules", *CONTENT),
    ]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
MODES = st.sampled_from([0, 0o111, 0o222, 0o444, 0o555, 0o4755])
Deed = tuple[str, str, object]
DEEDS: st.SearchStrategy[Deed] = st.one_of(
    st.tuples(st.just("write"), PATHS, st.binary(max_size=40)),
    st.tuples(
        st.sampled_from(["mkdir", "pipe", "socket", "device", "remove"]), PATHS, st.none()
    ),
    st.tuples(st.just("link"), PATHS, PATHS | st.sampled_from(["/", "..", "."])),
    st.tuples(st.sampled_from(["move", "swap"]), PATHS, PATHS),
    st.tuples(st.just("chmod"), PATHS | st.just("."), MODES),
    st.tuples(
        st.just("repository"),
        PATHS,
        st.sampled_from(["whole", "bare", "file", "empty", "pipe"]),
    ),
    st.tuples(st.just("deep"), PATHS, st.integers(1, 40)),
)
# Found by it, and mended.
PIPE_WHERE_NOTHING_IS_RENAMED: list[Deed] = [
    ("repository", "b", "empty"),
    ("pipe", ".gitignore", None),
    ("chmod", ".", 0o555),
]
LINK_ALONE_IN_A_REPOSITORY: list[Deed] = [
    ("repository", "b", "whole"),
    ("link", "b/.gitmodules", "a"),
]
ROUNDS = st.lists(st.lists(DEEDS, min_size=1, max_size=12), min_size=1, max_size=3)


def do(place: Path, deed: Deed, sample: Path) -> None:
    """Do it as far as it can be done, and never outside, where a link leads."""
    what, name, how = deed
    path = place / name
    others = [place / str(how)] if what in ("move", "swap") else []
    with contextlib.suppress(OSError, RuntimeError, shutil.Error):
        if not all(_lies_in(place, each.parent) for each in (path, *others)):
            return
        if path.is_symlink() and not _lies_in(place, path):
            return
        if what not in ("chmod", "remove"):
            path.parent.mkdir(parents=True, exist_ok=True)
        DOES[what](path, how, place, sample)


def _lies_in(place: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(place.resolve())


def write(path: Path, how: object, *_: Path) -> None:
    put(path, CONTENT.get(path.name, how if isinstance(how, bytes) else b""))


def put(path: Path, data: bytes) -> None:
    """Raises OSError also for a pipe that nobody reads, where it would wait for ever."""
    how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK
    with os.fdopen(os.open(path, how, 0o666), "wb") as file:
        file.write(data)


def special(kind: int) -> Callable[..., None]:
    def make(path: Path, *_: object) -> None:
        path.unlink(missing_ok=True)  # in the place of a file that was kept
        os.mknod(path, kind | 0o600, os.makedev(1, 3))

    return make


def link(path: Path, how: object, *_: Path) -> None:
    path.symlink_to(str(how))


def move(path: Path, how: object, place: Path, _: Path) -> None:
    """Leave nothing behind, or, to swap, a link."""
    other = place / str(how)
    other.parent.mkdir(parents=True, exist_ok=True)
    path.rename(other)


def swap(path: Path, how: object, place: Path, sample: Path) -> None:
    move(path, how, place, sample)
    path.symlink_to(str(how))


def remove(path: Path, *_: object) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def repository(path: Path, how: object, _: Path, sample: Path) -> None:
    path.mkdir(exist_ok=True)
    own = path / REPOSITORY
    match how:
        case "whole":
            shutil.copytree(sample / REPOSITORY, own)
        case "bare":
            shutil.copytree(sample / REPOSITORY, path, dirs_exist_ok=True)
        case "file":
            put(own, f"gitdir: {sample / REPOSITORY}\n".encode())
        case "empty":
            own.mkdir()
        case _:
            os.mkfifo(own)


def deep(path: Path, how: object, *_: Path) -> None:
    """Directories in directories, and a file in the last."""
    path.mkdir(exist_ok=True)
    here = os.open(path, os.O_DIRECTORY)
    for _number in range(int(str(how))):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("f", os.O_CREAT, dir_fd=here))
    os.close(here)


def mkdir(path: Path, *_: object) -> None:
    path.mkdir()


def chmod(path: Path, how: object, *_: Path) -> None:
    path.chmod(int(str(how)))


DOES: dict[str, Callable[..., None]] = {
    "write": write,
    "mkdir": mkdir,
    "pipe": special(stat.S_IFIFO),
    "socket": special(stat.S_IFSOCK),
    "device": special(stat.S_IFCHR),
    "link": link,
    "move": move,
    "swap": swap,
    "remove": remove,
    "chmod": chmod,
    "repository": repository,
    "deep": deep,
}


def check(place: Path, kept: Kept, elsewhere: Path) -> None:
    """All that lies there is kept or named, and comes back as it was, and nothing else does."""
    named = {each.name for each in kept.left_out}
    found = dict[str, bytes | None]()
    todo = [""]
    while todo:
        folder = todo.pop()
        for entry in listed(place / folder):
            name = f"{folder}{entry.name}"
            if entry.name == REPOSITORY or name in named:
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(f"{name}/")
            else:
                found[name] = content(place / name)
    back = {
        str(path.relative_to(elsewhere)): content(path)
        for path in elsewhere.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    for name, data in found.items():
        if name in back or not is_ignored(place, name):
            if data is None:  # by its times git may know that it still is what was kept
                data = closed_content(place / name)
            assert back.get(name) == data, f"{name!r} is not kept as it was: {back.get(name)!r}"
    for each in kept.left_out:
        assert each.why not in NO_FILE or each.name not in back, f"{each} comes back"
        assert each.why not in NEVER or LINK in each.name, f"{each} could be kept"
    for name in back.keys() - found.keys():
        above = [name, *(str(path) for path in Path(name).parents)]
        assert named.intersection(above), f"{name!r} comes back from nowhere"


def listed(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def content(path: Path) -> bytes | None:
    """What is to come back; None of what nobody can read."""
    if path.is_symlink():
        return b"-> " + os.fsencode(path.readlink())
    if not stat.S_ISREG(path.lstat().st_mode) or not os.access(path, os.R_OK):
        return None
    executable = b"x" if path.stat().st_mode & stat.S_IXUSR else b"-"
    return executable + path.read_bytes()


def closed_content(path: Path) -> bytes | None:
    """What is in a file that nobody may read, for whom it belongs to."""
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        return None
    path.chmod(mode | stat.S_IRUSR)
    try:
        return content(path)
    finally:
        path.chmod(mode)


def is_ignored(place: Path, name: str) -> bool:
    """Whether a .gitignore above it says so: each names one word."""
    parts = name.split("/")
    rules = (
        place.joinpath(*parts[:n], ".gitignore")
        for n in range(len(parts))
        if IGNORED in parts[n:]
    )
    return any(rule.is_file() and not rule.is_symlink() for rule in rules)


def keep_all(root: Path, rounds: list[list[Deed]], sample: Path) -> None:
    """Make the workspace, keep it after each round, and go back to each."""
    place = root / "place"
    place.mkdir()
    trees = Trees(root / "place.git", place)
    trees.create()
    commits = list[str]()
    for number, deeds in enumerate(rounds):
        for deed in deeds:
            do(place, deed, sample)
        kept = trees.keep(f"round {number}", parent=commits[-1] if commits else None)
        commits.append(kept.commit)
        elsewhere = root / f"elsewhere-{number}"
        elsewhere.mkdir()
        other = Trees(root / f"elsewhere-{number}.git", elsewhere)
        other.create()
        other.borrow(trees.git_dir)
        other.restore(kept.commit)
        check(place, kept, elsewhere)
        reading.files(place)
    for commit in commits:
        left = trees.keep("before", parent=commits[-1])
        trees.restore(commit, spare=left.left_out)
        after = trees.keep("after", parent=commit)
        closed = any(each.why == "unreadable" for each in left.left_out)
        assert closed or trees.same(commit, after.commit), "it is not what it was"


def main(examples: int, seed: int) -> None:
    """Make up so many workspaces. Raises AssertionError with the smallest that fails."""
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample"
        subprocess.run([*GIT, "init", "-q", "--template=", sample], check=True)
        subprocess.run(
            [*GIT, "-C", sample, "commit", "-q", "--allow-empty", "-m", "x"], check=True
        )

        @hypothesis.seed(seed)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given(ROUNDS)
        @example([PIPE_WHERE_NOTHING_IS_RENAMED])
        @example([LINK_ALONE_IN_A_REPOSITORY])
        def test(rounds: list[list[Deed]]) -> None:
            root = Path(tempfile.mkdtemp(dir=folder))
            try:
                keep_all(root, rounds, sample)
            finally:
                removal.remove(root)

        test()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
