"""Git commits of a directory, in a repository that lies elsewhere.

The directory is somebody else's: nothing in it configures what git does here. Its
`.gitattributes` are overruled, a `.git` in it is passed over, and the files of a
repository nested in it are kept like any others (git would keep a link to it at most).
What its `.gitignore` names is neither kept nor touched.
"""

import errno
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from worker.errors import WorkspaceFailed

ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "baton",
    "GIT_AUTHOR_EMAIL": "baton@localhost",
    "GIT_COMMITTER_NAME": "baton",
    "GIT_COMMITTER_EMAIL": "baton@localhost",
    "LC_ALL": "C",
}
SETTINGS = (
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.autocrlf=false"),
    *("-c", "core.safecrlf=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.attributesFile=/dev/null"),
    *("-c", "core.excludesFile=/dev/null"),
    *("-c", "gc.auto=0"),
)
# Before any .gitattributes: bytes in, the same bytes out.
ATTRIBUTES = "* -text !eol !ident !filter !working-tree-encoding !diff !merge\n"
TIMEOUT = 300  # seconds
FULL = ("No space left on device", "Out of diskspace", "Disk quota exceeded")  # as git says it


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
        (self.git_dir / "index.lock").unlink(missing_ok=True)  # of a git that was killed

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

    def restore(self, commit: str) -> None:
        """Make the directory what the commit says; files that git ignores stay."""
        for name in self._nested():
            if not self._git("ls-tree", commit, "--", f"{name}/"):
                shutil.rmtree(self.path / name, ignore_errors=True)
        self._git("read-tree", "--reset", "-u", commit)
        self._git("clean", "-fdq")

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

    def _run(self, *command: str, given: str = "", fine: tuple[int, ...] = (0,)) -> str:
        """Raises WorkspaceFailed with what git said, OSError when the disk is full."""
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
            said = done.stderr.decode(errors="replace").strip()[-300:]
            if any(full in said for full in FULL):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise WorkspaceFailed(f"Git cannot keep the workspace: {said}")
        return done.stdout.decode(errors="surrogateescape")
