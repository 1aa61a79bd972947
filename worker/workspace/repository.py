"""A workspace's repository as its upkeep sees it: what leads to what, and how much there is."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from worker.failures.errors import WorkspaceFailed
from worker.workspace import git
from worker.workspace.index import MARK
from worker.workspace.trees import Trees

# Nothing younger goes, by the time at which it was written or was last written again: what
# a turn has written has no ref until its commit is made.
YOUNG = "1.day.ago"
PACKING = (
    *("-c", "gc.autoDetach=false"),
    *("-c", "gc.cruftPacks=false"),
    *("-c", "gc.writeCommitGraph=false"),  # it would tell of commits that are gone
    *("-c", "pack.threads=1"),  # jobs run beside it
    *("-c", "pack.windowMemory=200m"),
)
LONGEST = 1800.0  # seconds for packing
SAMPLE = 16  # of the 256 directories of loose objects: git names them by a hash


@dataclass(frozen=True, slots=True)
class Repository(Trees):
    """The repository `git_dir`; nothing here looks at its directory."""

    def led_to(self, commit: str) -> set[str]:
        """Every commit in the history of one, with itself."""
        return set(self._git("rev-list", commit).split())

    def present(self, commits: Collection[str]) -> set[str]:
        """Which of these commits the repository has, or borrows."""
        given = "".join(f"{commit}^{{commit}}\n" for commit in sorted(commits))
        told = self._git("cat-file", "--batch-check", given=given).splitlines()
        return {line.split(" ")[0] for line in told if " commit " in line}

    def whole(self, commit: str) -> bool:
        """Whether nothing of the commit, its files and its history is missing."""
        try:
            self._git("rev-list", "--objects", "--quiet", commit, "--not", "--all")
        except WorkspaceFailed:
            return False
        return True

    def commit_index(self) -> str:
        """A commit of what the index lists: the next snapshot takes it to be there."""
        self._git("rm", "--cached", "-rq", "--ignore-unmatch", "--", f":(glob)**/{MARK}")
        tree = self._git("write-tree").strip()
        return self._git("commit-tree", tree, "-m", "index").strip()

    def take_refs(self, other: Path, here: str) -> None:
        """Have all that another repository's refs lead to, and its refs below `here`."""
        refs = f"+refs/baton/*:{here}/*"
        self.fetch(str(other), refs, "--prune")

    def counts(self) -> dict[str, int]:
        """What is stored: `count` loose objects, `packs`, `size` and `size-pack` in kB."""
        pairs = (line.split(": ") for line in self._git("count-objects", "-v").splitlines())
        return {name: int(n) for name, n in pairs if n.isdigit()}

    def pack(self) -> None:
        """Pack everything, without what it borrows; what no ref leads to goes unless YOUNG."""
        git.run(
            *("git", f"--git-dir={self.git_dir}", *git.SETTINGS, *PACKING),
            *("gc", "--quiet", f"--prune={YOUNG}"),
            cwd=self.path,
            within=LONGEST,
        )

    def prune(self) -> None:
        """Let what no ref leads to go unless YOUNG."""
        self._git("prune", f"--expire={YOUNG}")

    def loose(self) -> int:
        """About how many objects are not packed; asks no git."""
        found = 0
        for number in range(SAMPLE):
            folder = self.git_dir / "objects" / f"{number:02x}"
            if folder.is_dir():
                found += sum(1 for _ in folder.iterdir())
        return found * (256 // SAMPLE)
