"""Whether a directory is what the index of its repository lists, told by a look at both and no git.

Git's own rule: a file whose times, size, mode, owner and inode are those that the index has noted
has not changed since. Then nothing is to be added, and the tree is the one that the index has at
hand. At any doubt the answer is "do not know", and git looks.

    everything that lies there is listed as it is · nothing else is listed · every file is older than
    the index, so that what was written after it has another time (git: racy) · the tree is known
"""

import hashlib
import os
import stat
import struct
from pathlib import Path

from worker.workspace import beneath
from worker.workspace.inside import EMPTY

REPOSITORY = ".git"
HEAD = struct.Struct("!4sII")  # signature, version, entries
# Seconds and nanoseconds of ctime and mtime; device, inode, mode, owner, group, size; hash; flags.
ENTRY = struct.Struct("!10I20sH")
CHECKSUM = 20  # bytes, at the end
NAMED = 0x0FFF  # of the flags: the length of the name; the rest say that it is no plain entry
LONG = 0x0FFF  # a name that is longer than can be said
EVERY = 0xFFFFFFFF  # the index has the lower 32 bits of each
LINK, FILE, PROGRAM = 0o120000, 0o100644, 0o100755

Noted = tuple[int, ...]  # of a file: ctime, mtime, inode, mode, owner, group, size


def unchanged(index: Path, root: Path) -> str | None:
    """The tree of the directory, if that is plain to see; None: git has to look."""
    try:
        if not index.exists():  # nothing was ever listed: then nothing may lie there
            return None if any(root.iterdir()) else EMPTY
        data, newest = index.read_bytes(), index.stat().st_mtime_ns
        files, tree = _read(data)
        return tree if tree and _as_listed(root, files, newest) else None
    except (OSError, ValueError, struct.error):
        return None


def _read(data: bytes) -> tuple[dict[bytes, Noted], str | None]:
    """What an index lists, and its tree. Raises ValueError where it is none that we know."""
    kind, version, count = HEAD.unpack_from(data)
    whole = hashlib.sha1(data[:-CHECKSUM], usedforsecurity=False).digest()
    if (kind, version) != (b"DIRC", 2) or data[-CHECKSUM:] != whole:
        raise ValueError("an index of another kind")
    files, at = dict[bytes, Noted](), HEAD.size
    for _ in range(count):
        ctime, ctime_ns, mtime, mtime_ns, _, inode, mode, owner, group, size, _, flags = (
            ENTRY.unpack_from(data, at)
        )
        name_at, length = at + ENTRY.size, flags & NAMED
        if flags & ~NAMED or length == LONG:
            raise ValueError("an entry that is not plain")
        files[data[name_at : name_at + length]] = (
            *(ctime, ctime_ns, mtime, mtime_ns),
            *(inode, mode, owner, group, size),
        )
        at += (ENTRY.size + length) // 8 * 8 + 8
    return files, _tree(data, at)


def _tree(data: bytes, at: int) -> str | None:
    """The tree of all, where the index has it: its extension TREE begins with it."""
    while at + 8 <= len(data) - CHECKSUM:
        name, length = struct.unpack_from("!4sI", data, at)
        if name == b"TREE":
            told, _, rest = data[at + 8 : at + 8 + length].partition(b"\n")
            entries = int(told.removeprefix(b"\0").split(b" ")[0])
            return rest[:20].hex() if entries >= 0 else None  # -1: it is not known any more
        at += 8 + length
    return None


def _as_listed(root: Path, files: dict[bytes, Noted], newest: int) -> bool:
    left, todo = len(files), [""]
    with beneath.at(root) as base:
        while todo:
            folder = todo.pop()
            with beneath.listed(base, folder) as found:
                for entry in found:
                    name = folder + entry.name
                    if entry.name == REPOSITORY:
                        if folder:
                            return False  # a repository of its own: git is to be told to go in
                    elif entry.is_dir(follow_symlinks=False):
                        todo.append(f"{name}/")
                    elif _same(
                        files.get(os.fsencode(name)), entry.stat(follow_symlinks=False), newest
                    ):
                        left -= 1
                    else:
                        return False
    return left == 0


def _same(noted: Noted | None, found: os.stat_result, newest: int) -> bool:
    if noted is None or max(found.st_ctime_ns, found.st_mtime_ns) >= newest:
        return False
    ctime, mtime = divmod(found.st_ctime_ns, 10**9), divmod(found.st_mtime_ns, 10**9)
    rest = (found.st_ino, _mode(found.st_mode), found.st_uid, found.st_gid, found.st_size)
    return noted == tuple(each & EVERY for each in (*ctime, *mtime, *rest))


def _mode(mode: int) -> int:
    """As git has it; 0 for what it does not keep."""
    if stat.S_ISREG(mode):
        return PROGRAM if mode & stat.S_IXUSR else FILE
    return LINK if stat.S_ISLNK(mode) else 0
