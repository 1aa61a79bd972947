"""A repository by itself: its commits and refs, and its way to other repositories.

Nothing here looks at the directory whose files it keeps (worker/workspace/index.py, worker/workspace/trees.py).
What is small is done without a process, by libgit2 (worker/workspace/inside.py); what that cannot do,
for whatever reason, git does, and git's is the error.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from worker.workspace import git, inside

PLAINLY = (
    *("diff-tree", "-r", "--no-renames"),
    *("--no-ext-diff", "--no-textconv", "--no-color"),
)
WITHOUT_HOOKS = "git -c core.hooksPath=/dev/null receive-pack"


class _Counted(BytesIO):
    """Takes in what is written, and keeps its length alone."""

    bytes = 0

    def write(self, data: Any, /) -> int:
        self.bytes += len(data)
        return len(data)


@dataclass(frozen=True, slots=True)
class Objects:
    """The repository `git_dir` of the directory `path`."""

    git_dir: Path
    path: Path

    def exist(self) -> bool:
        """Whether the repository is there."""
        return (self.git_dir / "HEAD").exists()

    def has(self, commit: str) -> bool:
        """Whether the repository holds this commit, with all its files."""
        if inside.has(self.git_dir, commit):
            return True
        told = self._git("cat-file", "--batch-check", given=f"{commit}^{{commit}}\n")
        return not told.rstrip().endswith("missing")

    def tree(self, commit: str) -> str:
        """The tree of a commit."""
        found = inside.tree(self.git_dir, commit)
        return found or self._git("rev-parse", f"{commit}^{{tree}}").strip()

    def leads_to(self, commit: str, later: str) -> bool:
        """Whether the one commit is in the history of the other, or is it."""
        return not self._git("rev-list", "--max-count=1", commit, f"^{later}")

    def beyond(self, commit: str, others: Collection[str]) -> list[str]:
        """The commits of its history, the newest first, that are in none of the others'."""
        given = "\n".join((commit, *(f"^{each}" for each in others)))
        return self._git("rev-list", "--topo-order", "--stdin", given=given).split()

    def ref(self, name: str) -> str | None:
        """The commit that a ref names."""
        return self.pointed(name).get(name)

    def refs(self, below: str) -> list[str]:
        """The names of the refs below a prefix."""
        return list(self.pointed(below))

    def pointed(self, *below: str) -> dict[str, str]:
        """The refs of these names, and those below them, and the commit of each."""
        found = inside.pointed(self.git_dir, below)
        if found is not None:
            return found
        told = self._git("for-each-ref", "--format=%(refname) %(objectname)", *below)
        return dict(line.split(" ", 1) for line in told.splitlines())

    def point(self, name: str, commit: str) -> None:
        """Let a ref name a commit."""
        if not inside.move(self.git_dir, name, commit):
            self._git("update-ref", name, commit)

    def forget(self, name: str) -> None:
        """Remove a ref."""
        if not inside.forget(self.git_dir, name):
            self._git("update-ref", "-d", name)

    def move(self, name: str, commit: str, *, gone: Sequence[str]) -> None:
        """Let a ref name a commit, then remove others: in this order, whoever does it."""
        if inside.move(self.git_dir, name, commit, gone=gone):
            return
        lines = (f"update {name} {commit}", *(f"delete {each}" for each in gone))
        self._git("update-ref", "--stdin", given="".join(f"{line}\n" for line in lines))

    def names(self, commit: str) -> list[str]:
        """The files of a commit; bytes that are no text are escaped."""
        told = self._git("ls-tree", "-r", "-z", "--name-only", commit)
        return [name for name in told.split("\0") if name]

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
        return self._git(*PLAINLY, *options, before, after)

    def pour_patch(
        self, before: str, after: str, into: IO[bytes], *, within: float = git.TIMEOUT
    ) -> None:
        """Write the patch that git applies to go from one commit or tree to another. Raises as
        git.pour does."""
        command = ("git", f"--git-dir={self.git_dir}", *git.SETTINGS, *PLAINLY)
        options = ("-p", "--binary")
        git.pour(*command, *options, before, after, cwd=self.path, into=into, within=within)

    def patch_bytes(self, before: str, after: str) -> int:
        """How long that patch is."""
        counted = _Counted()
        self.pour_patch(before, after, counted)
        return counted.bytes

    def same(self, one: str, other: str) -> bool:
        """Whether two commits have the same files."""
        return self.tree(one) == self.tree(other)

    def added(self, before: str, after: str) -> list[str]:
        """The files that `after` has and `before` has not; bytes that are no text are escaped."""
        if before == after:
            return []
        found = inside.added(self.git_dir, before, after)
        return self._differing(before, after, "A") if found is None else found

    def touched(self, before: str, after: str) -> list[str]:
        """The files of `before` that are others in `after`, or are not there any more."""
        return [] if before == after else self._differing(before, after, "a")

    def _differing(self, before: str, after: str, how: str) -> list[str]:
        names = ("-r", "--no-renames", "--name-only", "-z", f"--diff-filter={how}")
        told = self._git("diff-tree", *names, before, after)
        return [name for name in told.split("\0") if name]

    def _git(self, *arguments: str, given: str = "", fine: tuple[int, ...] = (0,)) -> str:
        return self._told(*arguments, given=given, fine=fine)[0]

    def _told(
        self, *arguments: str, given: str = "", fine: tuple[int, ...] = (0,)
    ) -> tuple[str, str]:
        """What git answers, and what it complains of."""
        where = (f"--git-dir={self.git_dir}", f"--work-tree={self.path}")
        command = ("git", *where, *git.SETTINGS, *arguments)
        return git.told(
            *command,
            cwd=self.path,
            given=given,
            fine=fine,
            only=(self.path, self.git_dir),
            borrowed=self._borrowed(),
        )

    def _borrowed(self) -> list[Path]:
        """Where the objects lie that other repositories of this host lend."""
        try:
            named = (self.git_dir / "objects" / "info" / "alternates").read_text()
        except OSError:
            return []
        return [Path(line) for line in named.splitlines() if line]

    def _talk(self, *arguments: str, within: float = git.TIMEOUT) -> str:
        """Talk to another repository. Raises WorkspaceAway with what git said."""
        where = (f"--git-dir={self.git_dir}", *git.SETTINGS)
        return git.run(
            *("git", *where, *arguments), cwd=self.path, failed=git.away, within=within
        )
