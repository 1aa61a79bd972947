"""One look at a directory before git is let loose on it.

Git passes over pipes, sockets and devices without a word, takes a repository in the directory
for a link to another, ends at a directory that it may list and not enter, and waits for ever
for a pipe that stands where it reads its rules. So each entry is looked at once, here; what may
be kept of them is decided in worker/workspace/index.py. A bound on the files of a workspace, or on their
bytes, belongs here as well.
"""

import errno
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from worker.failures.errors import WorkspaceFailed
from worker.text.file_names import LONGEST, LeftOut
from worker.workspace import beneath, removal

REPOSITORY = ".git"
RULES = (".gitignore", ".gitattributes")  # which git opens wherever it comes by
RULES_LIMIT = 100 * 2**20  # bytes, beyond which newer gits read none
RENAMED = ".left-out"
KINDS = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
# Names that mean `.git` where case or these characters count for nothing, or on NTFS.
UNSEEN = dict.fromkeys(
    (*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF)
)
ON_NTFS = re.compile(r"(^|\\)(\.git|git~1)[. ]*([\\:]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen: directories that are repositories of their own, and what cannot be kept."""

    nested: list[str] = field(default_factory=list[str])
    left: list[LeftOut] = field(default_factory=list[LeftOut])


def look(root: Path) -> Survey:
    """Look at all that lies there; nothing in a directory that cannot be kept is looked at.

    Gives another name to what stands where git reads its rules and would keep it waiting.
    Raises OSError where the directory itself cannot be entered, and WorkspaceFailed where what
    would keep git waiting cannot be renamed.
    """
    removal.let_in(root, os.R_OK | os.X_OK)
    seen, todo = Survey(), [""]
    with beneath.at(root) as base:
        while todo:
            folder, barring = todo.pop(), dict[str, str | None]()
            try:
                todo += _look_in(base, folder, seen, barring)
            except OSError as exc:
                if exc.errno not in beneath.GONE:
                    why = "path" if exc.errno == errno.ENAMETOOLONG else "unreadable"
                    seen.left.append(LeftOut(folder[:-1], why))
            for name, why in barring.items():
                new = _renamed(base, folder, name)
                seen.left.extend([LeftOut(new, why)] if why else [])
    return seen


def _look_in(base: int, folder: str, seen: Survey, barring: dict[str, str | None]) -> list[str]:
    """Look at what lies in one directory; returns the directories to be looked at next, and
    fills in which names are in git's way, with why they are left out if they are."""
    todo = list[str]()
    with beneath.listed(base, folder) as entries:
        found = list(entries)
        if folder and not _enterable(base, folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        for entry in found:
            name = f"{folder}{entry.name}"
            if entry.name == REPOSITORY:
                seen.nested.extend([folder[:-1]] if folder else [])
                continue
            try:
                why = _why(entry, name)
                below = not why and entry.is_dir(follow_symlinks=False)
            except OSError:
                continue  # it is gone
            if entry.name in RULES and _bars(entry):
                barring[entry.name] = why
            elif why:
                seen.left.append(LeftOut(name, why))
            elif below:
                todo.append(f"{name}/")
    return todo


def _enterable(base: int, folder: str) -> bool:
    with beneath.folder(base, folder) as here:
        return beneath.may(here, os.X_OK)


def _why(entry: os.DirEntry[str], name: str) -> str | None:
    """Why the entry can be no part of a version, if that is so."""
    if len(name) * 4 > LONGEST and len(os.fsencode(name)) > LONGEST:
        return "path"
    if refused(entry.name):
        return "name"
    if entry.is_file(follow_symlinks=False) or entry.is_symlink() or entry.is_dir():
        return None
    return kind(entry.stat(follow_symlinks=False).st_mode)


def kind(mode: int) -> str | None:
    """What it is that is neither file, directory nor link."""
    return KINDS.get(stat.S_IFMT(mode))


def refused(name: str) -> bool:
    """Whether git takes no file of this name: somewhere it means `.git`."""
    if name.isascii() and "git" not in name.lower():
        return False
    return (
        name.translate(UNSEEN).lower() == REPOSITORY and name != REPOSITORY
    ) or ON_NTFS.search(name) is not None


def _bars(entry: os.DirEntry[str]) -> bool:
    """Whether git would wait for it, or choke on it."""
    try:
        found = entry.stat()  # older gits follow links
    except OSError:
        return False
    return kind(found.st_mode) is not None or (
        stat.S_ISREG(found.st_mode) and found.st_size > RULES_LIMIT
    )


def _renamed(base: int, folder: str, old: str) -> str:
    number, new = 1, f"{old}{RENAMED}"
    with beneath.unless_gone(), beneath.folder(base, folder) as here:
        while _is_there(here, new):
            number, new = number + 1, f"{old}{RENAMED}-{number}"
        try:
            mode = stat.S_IMODE(os.fstat(here).st_mode)
            removal.open_to_us(here)
            os.rename(old, new, src_dir_fd=here, dst_dir_fd=here)
            beneath.change_mode(here, mode)
        except PermissionError as exc:
            raise WorkspaceFailed(
                f"Git would wait for {folder}{old}, which is no file."
            ) from exc
    return f"{folder}{new}"


def _is_there(here: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=here)
    except FileNotFoundError:
        return False
    return True
