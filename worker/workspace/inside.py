"""Small things in a repository of ours, done within this process by libgit2: refs, commits, and what
two commits differ in.

It never looks at a workspace: what an agent has written is for git to read, in a process of its
own (a file that is cut short while it is read kills whoever reads it). Whatever libgit2 cannot do,
a lock that another holds, a form of repository that it does not know, a full disk, is answered with
"not done" (None), and nothing of it is there; then git does it, waits, or says why not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from worker.process import fence

if TYPE_CHECKING:  # a producer looks at places, and needs none of it
    from pygit2 import Commit, Repository

WHO = ("baton", "baton@localhost")
EMPTY = (
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # the tree without a file: git has it built in
)
P = ParamSpec("P")
R = TypeVar("R")


@cache
def _ready() -> tuple[type[Exception], ...]:
    """libgit2 with no configuration but the repository's; and how it fails."""
    import pygit2
    from pygit2.enums import ConfigLevel

    for level in (
        ConfigLevel.PROGRAMDATA,
        ConfigLevel.SYSTEM,
        ConfigLevel.XDG,
        ConfigLevel.GLOBAL,
    ):
        pygit2.settings.search_path[level] = ""
    pygit2.settings.owner_validation = False  # as with --git-dir: it is ours because we say so
    return (pygit2.GitError, KeyError, ValueError, TypeError, OSError)


def attempted(work: Callable[P, R]) -> Callable[P, R | None]:
    """The same, which answers None where libgit2 has failed."""

    @wraps(work)
    def tried(*args: P.args, **named: P.kwargs) -> R | None:
        with suppress(*_ready()):
            return work(*args, **named)
        return None

    return tried


def _open(git_dir: Path) -> Repository:
    """Opened anew each time: another process may have packed it meanwhile."""
    from pygit2 import Repository
    from pygit2.enums import RepositoryOpenFlag

    return Repository(str(git_dir), RepositoryOpenFlag.NO_SEARCH | RepositoryOpenFlag.BARE)


def _commit_of(repository: Repository, name: str) -> Commit:
    from pygit2 import Commit

    found = cast("object", repository[name])
    if not isinstance(found, Commit):
        raise TypeError(name)
    return found


@attempted
def has(git_dir: Path, commit: str) -> bool:
    """Whether the commit is there for certain."""
    return bool(_commit_of(_open(git_dir), commit))


@attempted
def tree(git_dir: Path, commit: str) -> str:
    """The tree of a commit."""
    return str(_commit_of(_open(git_dir), commit).tree_id)


@attempted
def pointed(git_dir: Path, below: Sequence[str]) -> dict[str, str]:
    """The refs of these names, and those below them, and the commit of each, in order."""
    if not (git_dir / "refs").is_dir() or (git_dir / "reftable").exists():
        raise ValueError("refs of another form")
    found = _packed(git_dir, below)
    for name in below:
        place = git_dir / name
        files = [place]
        if not place.is_file():
            files = place.rglob("*")  # by name: the repository is ours
        for file in files:
            if not file.name.endswith(".lock") and not file.is_dir():
                with suppress(FileNotFoundError):  # it went just now
                    found[str(file.relative_to(git_dir))] = _name_of(file)
    return dict(sorted(found.items()))


def _name_of(file: Path) -> str:
    commit = file.read_text().strip()
    if len(commit) != len(EMPTY):
        raise ValueError(file)
    return commit


def _packed(git_dir: Path, below: Sequence[str]) -> dict[str, str]:
    try:
        lines = (git_dir / "packed-refs").read_text().splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.split(" ", 1) for line in lines if line[:1] not in "#^")
    return {
        ref: commit
        for commit, ref in pairs
        if any(ref == name or ref.startswith(f"{name}/") for name in below)
    }


@attempted
def move(git_dir: Path, name: str, commit: str, *, gone: Sequence[str] = ()) -> bool:
    """Let a ref name a commit that is there, then remove others."""
    repository = _open(git_dir)
    fence.check()
    repository.references.create(name, _commit_of(repository, commit).id, force=True)
    for each in gone:
        _remove(repository, each)
    return True


@attempted
def forget(git_dir: Path, name: str) -> bool:
    """Remove a ref, if it is there."""
    repository = _open(git_dir)
    fence.check()
    _remove(repository, name)
    return True


def _remove(repository: Repository, name: str) -> None:
    if name in repository.references:
        repository.references.delete(name)


@attempted
def commit(git_dir: Path, message: str, parent: str | None, tree: str) -> str:
    """A new commit of a tree."""
    from pygit2 import Signature

    repository, who = _open(git_dir), Signature(*WHO)
    fence.check()
    if tree == EMPTY:
        repository.TreeBuilder().write()
    parents = [_commit_of(repository, parent).id] if parent else []
    return str(repository.create_commit(None, who, who, f"{message}\n", tree, parents))


@attempted
def added(git_dir: Path, before: str, after: str) -> list[str]:
    """The files that `after` has and `before` has not, in order."""
    from pygit2.enums import DeltaStatus

    repository = _open(git_dir)
    old, new = (_commit_of(repository, each) for each in (before, after))
    if str(old.tree_id) == EMPTY:
        repository.TreeBuilder().write()
    found = old.tree.diff_to_tree(new.tree).deltas
    names = (delta.new_file.raw_path for delta in found if delta.status == DeltaStatus.ADDED)
    return [name.decode(errors="surrogateescape") for name in names]
