"""The index of a workspace's repository: everything of the directory that a commit can hold.

Git itself lists and reads the files, by its own rules. It is told to go into nested repositories
by an entry of the index below each: what the index has a file of is a directory to it. What it
has not taken in the end is found by what the index lacks then, never by what git says of it.
"""

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass

from worker.failures.errors import WorkspaceFailed
from worker.text.file_names import LeftOut
from worker.workspace import beneath, git, survey
from worker.workspace.objects import Objects
from worker.workspace.survey import Survey

STRICT = ("-c", "core.protectHFS=true", "-c", "core.protectNTFS=true")
TRIES = 3  # at a directory that changes while it is read
PIECES = 200  # gits that take it apart then
MARK = (
    ".baton-opened"  # below a nested repository; it is never there, so git takes it out again
)
EMPTY_FILE = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
LINK = "160000"  # mode of what is a commit of another repository
CLOSED = {"unreadable", "path", "name"}  # directories that git is not to look at


@dataclass(frozen=True, slots=True)
class Index(Objects):
    """The index of the repository `git_dir`, and the directory `path`."""

    def take_all(self) -> list[LeftOut]:
        """List the directory as it is now; returns what the index cannot hold of it.

        A file that cannot be read stays listed as it was when it last could be.
        """
        for _ in range(TRIES):
            seen = self._look()
            try:
                shut = self._open(seen.nested)
                complaints = self._add(seen.left)
            except WorkspaceFailed:
                (self.git_dir / "index.lock").unlink(missing_ok=True)
                continue
            break
        else:
            seen = Survey([], self._look().left)
            self._add_apart(seen.left)
            shut, complaints = [], "piece by piece"
        missed = self._missed(seen) if complaints or shut else []
        return sorted({*seen.left, *missed})

    def take_from(self, commit: str) -> list[LeftOut]:
        """List the files of a commit instead; returns what the index cannot hold of them."""
        told = self._git("ls-tree", "-r", "-z", "--full-tree", commit).split("\0")
        entries = {line.partition("\t")[2]: line for line in told if line}
        left = {name: "submodule" for name in entries if entries[name].startswith(LINK)}
        left |= {name: "name" for name in entries if any(map(survey.refused, name.split("/")))}
        self._git("read-tree", "--empty")
        wanted = [name for name in entries if name not in left]
        left |= dict.fromkeys(self._enter({name: entries[name] for name in wanted}), "name")
        return sorted(LeftOut(name, why) for name, why in left.items())

    def take_out(self, commit: str, objects: Collection[str]) -> list[str]:
        """List the files of a commit but for these objects; returns the names that have them."""
        self._git("read-tree", "--reset", commit)
        told = self._git("ls-tree", "-r", "-t", "-z", "--full-tree", commit).split("\0")
        entries = {line.partition("\t")[2]: line.split()[2] for line in told if line}
        found = {name for name, each in entries.items() if each in objects}
        given = "\0".join(name for name in entries if _lies_in(name, found))
        self._git("update-index", "--force-remove", "-z", "--stdin", given=given)
        return sorted(found)

    def _look(self) -> Survey:
        """What lies there that git has to be told of, but for what it ignores."""
        seen = survey.look(self.path)
        ignored = self._ignored([*seen.nested, *(each.name for each in seen.left)])
        return Survey(
            [name for name in seen.nested if name not in ignored],
            [each for each in seen.left if each.name not in ignored],
        )

    def _ignored(self, names: Collection[str]) -> set[str]:
        if not names:
            return set()
        given = "\0".join(f"./{name}" for name in names)  # no name means more than itself then
        # 1: none is ignored; 128: one became a link just now, say, and nothing is known of any
        told = self._git("check-ignore", "-z", "--stdin", given=given, fine=(0, 1, 128))
        return {name.removeprefix("./") for name in told.split("\0")}

    def _open(self, nested: Collection[str]) -> list[str]:
        """Let git go into nested repositories; what they ignore is taken out, if it was listed
        before they did. Returns those that git does not go into."""
        if not nested:
            return []
        listed = self._git("ls-files", "-z", "--cached", "--ignored", "--exclude-standard")
        own = set(nested)
        old = [name for name in listed.split("\0") if _lies_in(name, own)]
        entries = {name: f"0 {'0' * 40}\t{name}" for name in old}
        return self._enter(
            entries | {name: f"100644 {EMPTY_FILE}\t{name}/{MARK}" for name in nested}
        )

    def _enter(self, entries: dict[str, str]) -> list[str]:
        """Enter lines of `update-index --index-info`; returns the names whose line git refuses."""
        try:
            given = "".join(f"{line}\0" for line in entries.values())
            self._git(*STRICT, "update-index", "-z", "--index-info", given=given)
        except WorkspaceFailed:
            if len(entries) == 1:
                return list(entries)
            names, half = list(entries), len(entries) // 2
            parts = (
                {name: entries[name] for name in part} for part in (names[:half], names[half:])
            )
            return [name for part in parts for name in self._enter(part)]
        return []

    def _add(self, left: Collection[LeftOut], place: str = ".") -> str:
        """Let the index list what is in a place now, without these; returns git's complaints."""
        closed = (f":(exclude,literal){each.name}" for each in left if each.why in CLOSED)
        _, said = self._told(
            *(*STRICT, "add", "--all", "--ignore-errors"),
            *("--pathspec-from-file=-", "--pathspec-file-nul"),
            given="\0".join((place, *closed)),
            fine=(0, 1),
        )
        git.check_room(said)
        return said

    def _add_apart(self, left: Collection[LeftOut]) -> None:
        """Add file by file, where one of them lets git end before it is through with the rest.

        Raises WorkspaceFailed where not one can be added.
        """
        listed = self._git("ls-files", "-z").split("\0")
        todo = sorted({name.partition("/")[0] for name in listed if name} | self._names(""))
        added, failed = False, WorkspaceFailed("Git cannot keep the workspace.")
        for _ in range(PIECES):
            if not todo:
                break
            piece = todo.pop()
            try:
                self._add(left, f":(literal){piece}")
                added = True
            except WorkspaceFailed as exc:
                failed = exc
                (self.git_dir / "index.lock").unlink(missing_ok=True)
                todo += sorted(f"{piece}/{name}" for name in self._names(piece))
        if not added:
            raise failed

    def _names(self, folder: str) -> set[str]:
        """What lies in a directory; nothing, if it is none."""
        try:
            with beneath.at(self.path) as base, beneath.listed(base, folder) as entries:
                return {each.name for each in entries} - {survey.REPOSITORY}
        except OSError:
            return set()

    def _missed(self, seen: Survey) -> list[LeftOut]:
        """What the index lacks of the directory; out of it goes what is no file any more."""
        self._open(seen.nested)  # the mark of one of which nothing could be added is gone
        told = self._git("ls-files", "-z", "--others", "--modified", "--exclude-standard")
        listed = self._git("ls-files", "-z", "--stage").split("\0")
        links = [line.partition("\t")[2] for line in listed if line.startswith(LINK)]
        closed = {each.name for each in seen.left if each.why in CLOSED}
        empty = {f"{name}/" for name in seen.nested}
        whys = {
            name.rstrip("/"): self._why(name)
            for name in dict.fromkeys((*told.split("\0"), *links))
            if name and name not in empty and not _lies_in(name, closed)
        }
        gone = [name for name, why in whys.items() if why in survey.KINDS.values()]
        marks = [f"{name}/{MARK}" for name in seen.nested]
        if gone or links or marks:
            given = "\0".join((*gone, *links, *marks))
            self._git("update-index", "--force-remove", "-z", "--stdin", given=given)
        if "refused" in whys.values():
            git.check_writable(self.git_dir)  # else it is not the file's fault
        return [LeftOut(name, why) for name, why in whys.items() if why]

    def _why(self, name: str) -> str | None:
        try:
            with beneath.at(self.path) as base, beneath.parent(base, name) as (here, last):
                mode = os.lstat(last, dir_fd=here).st_mode
                readable = not stat.S_ISREG(mode) or os.access(last, os.R_OK, dir_fd=here)
        except OSError as exc:
            return None if exc.errno in beneath.GONE else "unreadable"
        if stat.S_ISDIR(mode):
            return "repository"
        return survey.kind(mode) or ("refused" if readable else "unreadable")


def _lies_in(name: str, folders: Collection[str]) -> bool:
    """Whether it is one of them, or below one."""
    at = len(name)
    while at > 0:
        if name[:at] in folders:
            return True
        at = name.rfind("/", 0, at)
    return False
