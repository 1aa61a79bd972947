"""Git commits of a directory, in a repository that lies elsewhere.

The directory is somebody else's: nothing in it configures what git does here. Its
`.gitattributes` are overruled, a `.git` in it is passed over, and a repository nested in it is a
directory like any other (git would keep a link to it at most): only its `.gitignore` counts.
What a `.gitignore` names is neither kept nor touched. What cannot be kept is named, and touched
only where it is in the way. Directories without a file are not kept.
"""

import re
import tempfile
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from uuid import uuid4

from worker.failures.errors import WorkspaceBusy, WorkspaceFailed
from worker.text.file_names import LeftOut
from worker.workspace import git, inside, listed, lockfile, removal, survey
from worker.workspace.index import Index
from worker.workspace.inside import EMPTY as EMPTY

# Before any .gitattributes: bytes in, the same bytes out.
ATTRIBUTES = "* -text !eol !ident !filter !working-tree-encoding !diff !merge\n"
PATIENCE = 30.0  # seconds
LOCK_LASTS = 2.0  # seconds that a git that is at work may hold the lock of a ref
MOST_SPARED = 100_000  # characters of names in one command


def write_whole(path: Path, text: str) -> None:
    """Put a file there that nobody sees half of."""
    new = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        new.write_text(text)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _let_say(path: Path, text: str) -> None:
    """As `write_whole`, unless it says so already: gits of other processes read it."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, text)


@dataclass(frozen=True, slots=True)
class Kept:
    """A commit of a directory, and what is no part of it."""

    commit: str
    left_out: list[LeftOut]


@dataclass(frozen=True, slots=True)
class Trees(Index):
    """The repository `git_dir` of the directory `path`."""

    def create(self) -> None:
        """Make the repository unless it is there: beside its place, and put there whole, so that
        nobody finds what a git that was killed, or is at it, has made of it."""
        if not self.exist():
            self.git_dir.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.git_dir.parent, prefix=".new") as beside:
                new = Path(beside, "git")
                self._run("git", "init", "--quiet", "--bare", "--template=", str(new))
                try:
                    new.rename(self.git_dir)
                except OSError:
                    if not self.exist():  # nobody was quicker
                        raise
        _let_say(self.git_dir / "info" / "attributes", ATTRIBUTES)

    def borrow(self, other: Path) -> None:
        """Have the commits of another repository of this host too, without a copy of them."""
        _let_say(self.git_dir / "objects" / "info" / "alternates", f"{other / 'objects'}\n")

    @contextmanager
    def held_now(self) -> Generator[bool]:
        """As `held`, without waiting: False where somebody else is at it."""
        with lockfile.taken(self._lock, within=0) as alone:
            yield alone

    @contextmanager
    def held(self) -> Generator[None]:
        """Alone with the repository and its directory, among the processes that ask for this.

        Raises WorkspaceBusy where another does not let go of them within PATIENCE.
        """
        self.git_dir.parent.mkdir(parents=True, exist_ok=True)
        with lockfile.taken(self._lock, within=PATIENCE) as alone:
            if not alone:
                raise WorkspaceBusy(
                    f"The {lockfile.holder(self._lock)} is at work in {self.git_dir}, and has not"
                    f" let go of it for {PATIENCE:g} s: if it is stopped, let it go on or end it."
                )
            yield

    @property
    def _lock(self) -> Path:
        return self.git_dir.with_suffix(".lock")

    def mend(self) -> None:
        """Take away what a git that was killed left in the way of the next."""
        (self.git_dir / "index.lock").unlink(missing_ok=True)
        names = ("HEAD.lock", "config.lock", "packed-refs.lock", "packed-refs.new")
        left = [self.git_dir / name for name in names if (self.git_dir / name).exists()]
        left += (self.git_dir / "refs").rglob("*.lock")  # by name: ours; no ref is named so
        until = time.monotonic() + LOCK_LASTS  # a branch's git may be at it, and alive
        while any(lock.exists() for lock in left) and time.monotonic() < until:
            time.sleep(0.05)
        for lock in left:
            lock.unlink(missing_ok=True)

    def snapshot(self, message: str, *, parent: str | None) -> str:
        """As `keep`, where it does not matter what is left out."""
        return self.keep(message, parent=parent).commit

    def keep(self, message: str, *, parent: str | None) -> Kept:
        """Commit the directory as it is, whatever lies in it; the commit is `parent` when nothing
        that can be kept has changed since."""
        if not self.path.is_dir():
            raise git.gone(self.path)
        if tree := listed.unchanged(self.git_dir / "index", self.path):
            return Kept(self._commit(message, parent, tree), [])
        return self._committed(message, parent, self.take_all())

    def _committed(self, message: str, parent: str | None, left: list[LeftOut]) -> Kept:
        """What the index lists, as a commit."""
        return Kept(self._commit(message, parent, self._git("write-tree").strip()), left)

    def _commit(self, message: str, parent: str | None, tree: str) -> str:
        """A commit of the tree, unless it is the parent's."""
        if parent and _tree(self, parent) == tree:
            return parent
        if made := inside.commit(self.git_dir, message, parent, tree):
            return made
        parents = ["-p", parent] if parent else []
        return self._git("commit-tree", tree, *parents, "-m", message).strip()

    def without(self, kept: Kept, objects: Collection[str], *, parent: str | None) -> Kept:
        """The same without the files that have these contents."""
        names = self.take_out(kept.commit, objects)
        message = self._git("show", "--no-patch", "--format=%B", kept.commit).strip()
        left = [*kept.left_out, *(LeftOut(name, "remote") for name in names)]
        return self._committed(message, parent, sorted(left))

    def commit_of(self, ref: str, message: str) -> Kept:
        """A commit without a past of the files that another has."""
        return self._committed(message, None, self.take_from(ref))

    def switch(self, commit: str) -> None:
        """Let the commit's files take the place of those that the last snapshot has."""
        survey.look(self.path)  # so that nothing keeps git waiting
        self._insist("read-tree", "--reset", "-u", commit)

    def restore(
        self, commit: str, *, spare: Collection[LeftOut] = (), ignored_too: bool = False
    ) -> None:
        """Make the directory what the commit says; files that git ignores stay, unless they are
        to go too, and so does what is to be spared, where it is not in the way."""
        self.switch(commit)
        names = _spared(spare)
        if sum(map(len, names)) > MOST_SPARED:
            return
        around = self._open_around(names)
        self._insist(
            "clean",
            "-ffdqx" if ignored_too else "-ffdq",
            *(f"--exclude=/{_literal(name)}" for name in names),
        )
        if around:
            self._git("read-tree", "--reset", commit)

    def _open_around(self, names: Collection[str]) -> bool:
        """Let git go into the nested repositories that these lie in: it would remove each as a
        whole. Whether there are any."""
        above = {str(folder) for name in names for folder in PurePosixPath(name).parents}
        nested = [name for name in survey.look(self.path).nested if name in above]
        self._open(nested)
        return bool(nested)

    def _insist(self, *arguments: str) -> None:
        """Let git write the directory, though an agent may have closed parts of it."""
        try:
            self._git(*arguments)
        except (WorkspaceFailed, OSError):
            removal.open_up(self.path)
            self._git(*arguments, fine=(0, 1))  # 1: something is left that nobody can remove

    def _run(self, *command: str) -> str:
        return git.run(*command, cwd=self.path)


def _spared(left: Collection[LeftOut]) -> list[str]:
    """What git is to leave alone; of very many names the directories that they lie in."""
    names = [each.name for each in left]
    if sum(map(len, names)) > MOST_SPARED:
        names = list(dict.fromkeys(name.partition("/")[0] for name in names))
    return names


def _literal(name: str) -> str:
    """The name as a pattern of gitignore; a line ends there, so what ends it is any character."""
    return re.sub(r"([\\*?\[\] ])", r"\\\1", name).replace("\n", "?")


@lru_cache(maxsize=1000)
def _tree(trees: Trees, commit: str) -> str:
    """The tree of a commit, which is the same for good."""
    return trees.tree(commit)
