"""Git commits of a directory, in a repository that lies elsewhere.

The directory is somebody else's: nothing in it configures what git does here. Its
`.gitattributes` are overruled, a `.git` in it is passed over, and the files of a
repository nested in it are kept like any others (git would keep a link to it at most).
What its `.gitignore` names is neither kept nor touched.
"""

import errno
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from worker import fence
from worker.errors import KEYS, JobError, WorkspaceAway, WorkspaceFailed

ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "baton",
    "GIT_AUTHOR_EMAIL": "baton@localhost",
    "GIT_COMMITTER_NAME": "baton",
    "GIT_COMMITTER_EMAIL": "baton@localhost",
    "LC_ALL": "C",
    # To other repositories: by these ways only, and nobody is asked for a password.
    "GIT_ALLOW_PROTOCOL": "file:ssh:https:http:git",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=15",
}
SETTINGS = (
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.autocrlf=false"),
    *("-c", "core.safecrlf=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.attributesFile=/dev/null"),
    *("-c", "core.excludesFile=/dev/null"),
    *("-c", "gc.auto=0"),
    *("-c", "fetch.unpackLimit=1"),  # a fetch that breaks off leaves nothing
)
WITHOUT_HOOKS = "git -c core.hooksPath=/dev/null receive-pack"
# Before any .gitattributes: bytes in, the same bytes out.
ATTRIBUTES = "* -text !eol !ident !filter !working-tree-encoding !diff !merge\n"
TIMEOUT = 300  # seconds
PATIENCE = 30  # seconds
FULL = ("No space left on device", "Out of diskspace", "Disk quota exceeded")  # as git says it
LAST = 300  # characters of what git says
EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # the tree without a file


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _not_kept(said: str) -> JobError:
    return WorkspaceFailed(f"Git cannot keep the workspace: {said[-LAST:]}")


def _away(said: str) -> JobError:
    """What git says first is why; the rest is what it guesses."""
    first = next((line for line in said.splitlines() if line.strip()), "git said nothing")
    return WorkspaceAway(KEYS.sub("[secret]", first.removeprefix("fatal: "))[:LAST])


@dataclass(frozen=True, slots=True)
class Trees:
    """The repository `git_dir` of the directory `path`."""

    git_dir: Path
    path: Path

    def exist(self) -> bool:
        """Whether the repository is there."""
        return (self.git_dir / "HEAD").exists()

    def create(self) -> None:
        """Make the repository unless it is there."""
        if not self.exist():
            self.git_dir.parent.mkdir(parents=True, exist_ok=True)
            self._run("git", "init", "--quiet", "--bare", "--template=", str(self.git_dir))
        attributes = self.git_dir / "info" / "attributes"
        attributes.parent.mkdir(exist_ok=True)
        attributes.write_text(ATTRIBUTES)

    def borrow(self, other: Path) -> None:
        """Have the commits of another repository of this host too, without a copy of them."""
        alternates = self.git_dir / "objects" / "info" / "alternates"
        alternates.parent.mkdir(exist_ok=True)
        alternates.write_text(f"{other / 'objects'}\n")

    def mend(self) -> None:
        """Take away what a git that was killed left in the way of the next."""
        (self.git_dir / "index.lock").unlink(missing_ok=True)

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

    def leads_to(self, commit: str, later: str) -> bool:
        """Whether the one commit is in the history of the other, or is it."""
        return not self._git("rev-list", "--max-count=1", commit, f"^{later}")

    def ref(self, name: str) -> str | None:
        """The commit that a ref names."""
        return self._git("for-each-ref", "--format=%(objectname)", name).strip() or None

    def refs(self, below: str) -> list[str]:
        """The names of the refs below a prefix."""
        return self._git("for-each-ref", "--format=%(refname)", below).split()

    def point(self, name: str, commit: str) -> None:
        """Let a ref name a commit."""
        self._git("update-ref", name, commit)

    def forget(self, name: str) -> None:
        """Remove a ref."""
        self._git("update-ref", "-d", name)

    def snapshot(self, message: str, *, parent: str | None) -> str:
        """Commit the directory as it is; returns `parent` when nothing changed since."""
        nested = self._nested()
        self._git("add", "--all", "--", ".", *(f":(exclude,literal){name}" for name in nested))
        for name in nested:
            self._add_nested(name)
        tree = self._git("write-tree").strip()
        if parent and self._git("rev-parse", f"{parent}^{{tree}}").strip() == tree:
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

    def refs_of(self, url: str, names: Collection[str]) -> list[str]:
        """Which of these refs another repository has. Raises WorkspaceAway."""
        told = self._talk("ls-remote", "--quiet", "--", url, *names)
        return [line.partition("\t")[2] for line in told.splitlines()]

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
            *("git", *where, *SETTINGS, "check-ignore", "-z", "--stdin"),
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
        return self._run("git", *where, *SETTINGS, *arguments, given=given)

    def _talk(self, *arguments: str) -> str:
        """Talk to another repository. Raises WorkspaceAway with what git said."""
        where = (f"--git-dir={self.git_dir}", *SETTINGS)
        try:
            return self._run("git", *where, *arguments, failed=_away)
        except subprocess.TimeoutExpired as exc:
            raise WorkspaceAway(f"no answer in {TIMEOUT} s") from exc

    def _run(
        self,
        *command: str,
        given: str = "",
        fine: tuple[int, ...] = (0,),
        failed: Callable[[str], JobError] = _not_kept,
    ) -> str:
        """Raises what `failed` makes of what git said, OSError when the disk is full, Stopped
        when the workspace is another attempt's by now."""
        fence.check()
        around = {
            name: value for name, value in os.environ.items() if not name.startswith("GIT_")
        }
        done = subprocess.run(
            command,
            cwd=self.path,
            env={**around, **ENVIRONMENT},
            input=given.encode(errors="surrogateescape"),
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode not in fine:
            said = done.stderr.decode(errors="replace").strip()
            if any(full in said for full in FULL) and failed is _not_kept:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise failed(said)
        return done.stdout.decode(errors="surrogateescape")
