"""Git commits of a directory, in a repository that lies elsewhere.

The directory is somebody else's: nothing in it configures what git does here. Its
`.gitattributes` are overruled, a `.git` in it is passed over, and the files of a
repository nested in it are kept like any others (git would keep a link to it at most).
What its `.gitignore` names is neither kept nor touched.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO
from uuid import uuid4

from worker import git

WITHOUT_HOOKS = "git -c core.hooksPath=/dev/null receive-pack"
# Before any .gitattributes: bytes in, the same bytes out.
ATTRIBUTES = "* -text !eol !ident !filter !working-tree-encoding !diff !merge\n"
PATIENCE = 30  # seconds
LOCK_LASTS = 2.0  # seconds that a git that is at work may hold the lock of a ref
EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # the tree without a file


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
class Trees:
    """The repository `git_dir` of the directory `path`."""

    git_dir: Path
    path: Path

    def exist(self) -> bool:
        """Whether the repository is there."""
        return (self.git_dir / "HEAD").exists()

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
        with self.git_dir.with_suffix(".lock").open("a") as lock:
            alone = _locked(lock)
            try:
                yield alone
            finally:
                if alone:  # a process that was forked meanwhile may have the file open for long
                    fcntl.flock(lock, fcntl.LOCK_UN)

    def mend(self) -> None:
        """Take away what a git that was killed left in the way of the next."""
        (self.git_dir / "index.lock").unlink(missing_ok=True)
        names = ("HEAD.lock", "config.lock", "packed-refs.lock", "packed-refs.new")
        left = [self.git_dir / name for name in names if (self.git_dir / name).exists()]
        left += (self.git_dir / "refs").rglob("*.lock")  # no ref may be named so
        until = time.monotonic() + LOCK_LASTS  # a branch's git may be at it, and alive
        while any(lock.exists() for lock in left) and time.monotonic() < until:
            time.sleep(0.05)
        for lock in left:
            lock.unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Generator[None]:
        """Alone with the repository and its directory, among the processes that ask for this.

        One that is stopped meanwhile is not waited for longer than PATIENCE.
        """
        self.git_dir.parent.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + PATIENCE
        with self.git_dir.with_suffix(".lock").open("a") as lock:
            while not _locked(lock) and time.monotonic() < until:
                time.sleep(0.05)
            yield

    def has(self, commit: str) -> bool:
        """Whether the repository holds this commit, with all its files."""
        told = self._git("cat-file", "--batch-check", given=f"{commit}^{{commit}}\n")
        return not told.rstrip().endswith("missing")

    def tree(self, commit: str) -> str:
        """The tree of a commit."""
        return self._git("rev-parse", f"{commit}^{{tree}}").strip()

    def leads_to(self, commit: str, later: str) -> bool:
        """Whether the one commit is in the history of the other, or is it."""
        return not self._git("rev-list", "--max-count=1", commit, f"^{later}")

    def beyond(self, commit: str, others: Collection[str]) -> list[str]:
        """The commits of its history, the newest first, that are in none of the others'."""
        given = "\n".join((commit, *(f"^{each}" for each in others)))
        return self._git("rev-list", "--topo-order", "--stdin", given=given).split()

    def ref(self, name: str) -> str | None:
        """The commit that a ref names."""
        return self._git("for-each-ref", "--format=%(objectname)", name).strip() or None

    def refs(self, below: str) -> list[str]:
        """The names of the refs below a prefix."""
        return self._git("for-each-ref", "--format=%(refname)", below).split()

    def pointed(self, *below: str) -> dict[str, str]:
        """The refs of these names, and those below them, and the commit of each."""
        told = self._git("for-each-ref", "--format=%(refname) %(objectname)", *below)
        return dict(line.split(" ", 1) for line in told.splitlines())

    def point(self, name: str, commit: str) -> None:
        """Let a ref name a commit."""
        self._git("update-ref", name, commit)

    def forget(self, name: str) -> None:
        """Remove a ref."""
        self._git("update-ref", "-d", name)

    def move(self, name: str, commit: str, *, gone: Sequence[str]) -> None:
        """Let a ref name a commit, then remove others: one git, which does it in this order."""
        lines = (f"update {name} {commit}", *(f"delete {each}" for each in gone))
        self._git("update-ref", "--stdin", given="".join(f"{line}\n" for line in lines))

    def snapshot(self, message: str, *, parent: str | None) -> str:
        """Commit the directory as it is; returns `parent` when nothing changed since."""
        nested = self._nested()
        self._git("add", "--all", "--", ".", *(f":(exclude,literal){name}" for name in nested))
        for name in nested:
            self._add_nested(name)
        tree = self._git("write-tree").strip()
        if parent and _tree(self, parent) == tree:
            return parent
        parents = ["-p", parent] if parent else []
        return self._git("commit-tree", tree, *parents, "-m", message).strip()

    def names(self, commit: str) -> list[str]:
        """The files of a commit; bytes that are no text are escaped."""
        told = self._git("ls-tree", "-r", "-z", "--name-only", commit)
        return [name for name in told.split("\0") if name]

    def commit_of(self, ref: str, message: str) -> tuple[str, list[str]]:
        """A commit without a past of the files that another has, and its submodules, left out."""
        self._git("read-tree", "--reset", ref)
        entries = self._git("ls-files", "-z", "--stage").split("\0")
        links = [each.partition("\t")[2] for each in entries if each.startswith("160000")]
        self._git("update-index", "--force-remove", "-z", "--stdin", given="\0".join(links))
        tree = self._git("write-tree").strip()
        return self._git("commit-tree", tree, "-m", message).strip(), links

    def switch(self, commit: str) -> None:
        """Let the commit's files take the place of those that the last snapshot has."""
        self._git("read-tree", "--reset", "-u", commit)

    def restore(self, commit: str) -> None:
        """Make the directory what the commit says; files that git ignores stay."""
        for name in self._nested():
            if not self._git("ls-tree", commit, "--", f"{name}/"):
                shutil.rmtree(self.path / name, ignore_errors=True)
        self.switch(commit)
        self._git("clean", "-fdq")

    def fetch(self, url: str, what: str, *options: str) -> None:
        """Bring a commit here, or what a refspec says. Raises WorkspaceAway."""
        quiet = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        self._talk("fetch", *quiet, *options, "--", url, what)

    def push(self, url: str, *refspecs: str) -> None:
        """Send commits to refs of another repository. Raises WorkspaceAway."""
        local = (f"--receive-pack={WITHOUT_HOOKS}",) if url.startswith("file:") else ()
        self._talk("push", "--quiet", *local, "--", url, *refspecs)

    def refs_of(
        self, url: str, names: Collection[str], *, within: float = git.TIMEOUT
    ) -> dict[str, str]:
        """Which of these refs (patterns) another repository has, and the commit of each.

        Raises WorkspaceAway, also when there is no answer in so many seconds.
        """
        told = self._talk("ls-remote", "--quiet", "--", url, *names, within=within)
        found = (line.split("\t", 1) for line in told.splitlines())
        return {ref: commit for commit, ref in found}

    def patch(self, before: str, after: str, *options: str) -> str:
        """What changed from one commit or tree to another, as `options` of git diff-tree say.

        Bytes that are no text are escaped (surrogateescape).
        """
        plainly = ("--no-renames", "--no-ext-diff", "--no-textconv", "--no-color")
        return self._git("diff-tree", "-r", *plainly, *options, before, after)

    def same(self, one: str, other: str) -> bool:
        """Whether two commits have the same files."""
        return not self._git("diff-tree", "-r", "--name-only", one, other)

    def added(self, before: str, after: str) -> list[str]:
        """The files that `after` has and `before` has not; bytes that are no text are escaped."""
        if before == after:
            return []
        told = self._git(
            "diff-tree",
            "-r",
            "--no-renames",
            "--name-only",
            "-z",
            "--diff-filter=A",
            before,
            after,
        )
        return [name for name in told.split("\0") if name]

    def _nested(self) -> list[str]:
        """Directories of other repositories, the outermost of each."""
        found: list[str] = []
        for folder, folders, names in os.walk(self.path):
            inside = Path(folder) != self.path
            if inside and (".git" in folders or ".git" in names):
                found.append(str(Path(folder).relative_to(self.path)))
                folders.clear()
        return [name for name in found if name not in self._ignored(found)]

    def _ignored(self, names: list[str]) -> set[str]:
        if not names:
            return set()
        where = (f"--git-dir={self.git_dir}", f"--work-tree={self.path}")
        told = self._run(
            *("git", *where, *git.SETTINGS, "check-ignore", "-z", "--stdin"),
            given="\0".join(names),
            fine=(0, 1),  # 1: none is ignored
        )
        return set(told.split("\0"))

    def _add_nested(self, name: str) -> None:
        """Put a nested repository's files into the index, and take gone ones out."""
        known = self._git("ls-files", "-z", "--cached", "--", f":(literal){name}").split("\0")
        here: list[str] = []
        for folder, folders, names in os.walk(self.path / name):
            folders[:] = [each for each in folders if each != ".git"]
            base = Path(folder).relative_to(self.path)
            links = [each for each in folders if (Path(folder) / each).is_symlink()]
            here += [str(base / each) for each in (*names, *links) if each != ".git"]
        listed = "\0".join(each for each in dict.fromkeys((*known, *here)) if each)
        self._git("update-index", "--add", "--remove", "-z", "--stdin", given=listed)

    def _git(self, *arguments: str, given: str = "") -> str:
        where = (f"--git-dir={self.git_dir}", f"--work-tree={self.path}")
        return self._run("git", *where, *git.SETTINGS, *arguments, given=given)

    def _talk(self, *arguments: str, within: float = git.TIMEOUT) -> str:
        """Talk to another repository. Raises WorkspaceAway with what git said."""
        where = (f"--git-dir={self.git_dir}", *git.SETTINGS)
        return git.run(
            *("git", *where, *arguments), cwd=self.path, failed=git.away, within=within
        )

    def _run(self, *command: str, given: str = "", fine: tuple[int, ...] = (0,)) -> str:
        return git.run(*command, cwd=self.path, given=given, fine=fine)


@lru_cache(maxsize=1000)
def _tree(trees: Trees, commit: str) -> str:
    """The tree of a commit, which is the same for good."""
    return trees.tree(commit)
