"""What the refs of a workspace's repository mean, and how its directory moves between them.

refs/baton/head            the workspace as the last whole turn here left it
refs/baton/begun/<attempt> the workspace as a running attempt found it
refs/baton/made/<attempt>  what its turn made of it, until that is known to be committed
refs/baton/lost/<attempt>  what an attempt that came to nothing had made of it
refs/baton/aside/<commit>  what had to make way for a commit of the ledger's
refs/baton/branches/<lane> the newest commit of a branch; each has a repository of its own
refs/baton/kept/<commit>   what the ledger names to go back to, and head does not lead to
refs/baton/lent/<lane>/…   the refs of a branch's repository: it borrows objects of this one

Only upkeep sets kept and lent, and only it deletes old lost and aside
(worker/workspace/repositories.py).
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress

from worker.text.file_names import LeftOut
from worker.workspace import beneath, measure
from worker.workspace.trees import EMPTY, Trees

HEAD = "refs/baton/head"
BEGUN = "refs/baton/begun"
MADE = "refs/baton/made"
LOST = "refs/baton/lost"
ASIDE = "refs/baton/aside"
BRANCHES = "refs/baton/branches"
KEPT = "refs/baton/kept"
LENT = "refs/baton/lent"
INDEX = "refs/baton/index"  # of a branch's repository, what its index lists

# As the CLI names a file until it is whole.
HALF_WRITTEN = re.compile(r"\.tmp\.\d+\.[0-9a-f]{12}$")


def confirm(trees: Trees, attempt: str, commit: str) -> None:
    """The attempt's turn was committed. Its own notes go last: as long as they are there, it is
    not confirmed."""
    own = f"{BEGUN}/{attempt}"
    for ref in trees.refs(BEGUN):
        if ref != own:
            trees.forget(ref)
    trees.move(HEAD, commit, gone=(own, f"{MADE}/{attempt}"))


def catch_up(trees: Trees, committed: Callable[[str], bool]) -> list[str]:
    """Confirm what the ledger has, and its worker did not live to confirm.

    Returns the attempts whose turns came to nothing.
    """
    trees.mend()
    lost: list[str] = []
    for ref in trees.refs(MADE):
        attempt, commit = ref.rpartition("/")[2], trees.ref(ref)
        begun = trees.ref(f"{BEGUN}/{attempt}")
        if commit and commit == begun:
            continue  # it changed nothing: the commit says nothing of the turn
        if not commit or not committed(commit):
            lost.append(attempt)
        elif begun:
            confirm(trees, attempt, commit)
        else:  # it was confirmed, or passed over: what is noted of others is of later attempts
            trees.forget(ref)
    return lost


def bring(trees: Trees, commit: str) -> list[str]:
    """Let the directory be what the commit says, unless this host has gone on from it."""
    if trees.ref(HEAD) == commit:
        # Lost: what a turn has emptied has a head without files.
        if not any(trees.path.iterdir()) and trees.tree(commit) != EMPTY:
            trees.restore(commit)
            _forget_begun(trees)  # what an attempt had made went with it
        return []
    kept = _make_way(trees, commit)
    _forget_begun(trees)
    trees.point(HEAD, commit)  # the last thing: whoever dies before begins anew
    return kept


def _forget_begun(trees: Trees) -> None:
    for ref in trees.refs(BEGUN):
        trees.forget(ref)


def _make_way(trees: Trees, commit: str) -> list[str]:
    """Put the commit's files into the directory; the refs under which is kept what lay there.
    Of what an attempt left that came to nothing, and is too much, nothing is."""
    if trees.refs(BEGUN) and measure.excess(trees.path):
        _drop_all(trees, commit)
        return []
    here = trees.ref(HEAD)
    left = trees.snapshot("made way", parent=here) if any(trees.path.iterdir()) else here
    kept = _keep(trees, left, commit)
    trees.switch(commit)
    ignored = trees.keep("was ignored by git", parent=commit)
    kept += _keep(trees, ignored.commit, commit)
    trees.restore(commit, spare=ignored.left_out)
    return kept


def _keep(trees: Trees, left: str | None, beside: str) -> list[str]:
    """Name what the other commit does not have, files or history."""
    if left is None or trees.same(left, beside) or trees.leads_to(left, beside):
        return []
    trees.point(f"{ASIDE}/{left}", left)
    return [f"{ASIDE}/{left}"]


def put_lost_aside(trees: Trees) -> str | None:
    """An attempt began here and never came to a commit: keep its leftovers, unless they are too
    much, and go back."""
    begun = trees.refs(BEGUN)
    if not begun:
        return None
    if measure.excess(trees.path):
        _drop_all(trees, begun[0])
        for ref in begun:
            trees.forget(ref)
        return None
    lost_ref = f"{LOST}/{begun[0].rpartition('/')[2]}"
    left = trees.keep("left by an attempt that came to nothing", parent=trees.ref(HEAD))
    same = trees.same(begun[0], left.commit)
    if not same:
        trees.point(lost_ref, left.commit)
        trees.restore(begun[0], spare=left.left_out)
    for ref in begun:
        trees.forget(ref)
    return None if same else lost_ref


def _drop_all(trees: Trees, commit: str) -> None:
    """Go to the commit without a look at what lies there. What git ignores may be people's: it
    goes only where it is too much by itself."""
    trees.restore(commit)
    if measure.excess(trees.path):
        trees.restore(commit, ignored_too=True)


def put_edits_aside(trees: Trees) -> tuple[str | None, list[LeftOut]]:
    """Keep what people changed since the last whole turn here; the ref, if they did, and what
    cannot be kept."""
    head = trees.ref(HEAD)
    if not any(trees.path.iterdir()):
        return None, []
    left = trees.keep("changed since the last turn", parent=head)
    if left.commit == head:
        return None, left.left_out
    trees.point(f"{ASIDE}/{left.commit}", left.commit)
    return f"{ASIDE}/{left.commit}", left.left_out


def drop_half_written(trees: Trees, begun: str) -> None:
    """Remove the file that the agent was writing when it was killed, beside the one it is to be."""
    left = trees.snapshot("left by an attempt that is gone on from", parent=begun)
    for name in trees.added(begun, left):
        if HALF_WRITTEN.search(name):
            with (
                suppress(OSError),  # then it is one file too many, and no more
                beneath.at(trees.path) as base,
                beneath.parent(base, name) as (here, last),
            ):
                os.unlink(last, dir_fd=here)
