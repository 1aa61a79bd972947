"""How a worker that is root gives its agent what is to be the agent's: it is another user.

The keeper does it before each turn. It imports the standard library alone, as the keeper does.
"""

import contextlib
import os
import stat


def give(places: list[str], uid: int) -> str | None:
    """Hand the directories over; where one cannot be, says so."""
    try:
        for place in places:
            hand_over(place, uid)
    except OSError as exc:
        return f"cannot give {exc.filename} to uid {uid}: {exc.strerror}"
    return None


def hand_over(place: str, uid: int) -> None:
    """Give the agent what lies in a directory of its own; its group stays. Nothing behind a
    link, on another disk, or that a device or a name elsewhere leads to as well: that may be
    somebody else's. What cannot be given stays as it is; OSError is of the directory itself.

    Our git and people go on writing there, so it is looked through before each turn.
    """
    disk = os.lstat(place).st_dev
    os.chown(place, uid, -1, follow_symlinks=False)
    with contextlib.suppress(OSError):
        for _, folders, names, here in os.fwalk(place):
            for name in (*folders, *names):
                with contextlib.suppress(OSError):
                    found = os.lstat(name, dir_fd=here)
                    if found.st_dev != disk and name in folders:
                        folders.remove(name)
                    elif found.st_uid != uid and alone(found):
                        os.chown(name, uid, -1, dir_fd=here, follow_symlinks=False)


def alone(found: os.stat_result) -> bool:
    """Whether it is nothing but what lies there."""
    if stat.S_ISREG(found.st_mode):
        return found.st_nlink == 1
    return not (stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode))
