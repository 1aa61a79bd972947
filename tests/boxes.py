"""What an agent in a box may try to get out of it, and workers that are not root."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

from dev.stack.procfile import CODE
from tests.running import AtWork
from worker.sandbox import box
from worker.sandbox.home import own_directory
from worker.sandbox.leash import KEEPER, cli
from worker.sandbox.probe import Make

SOMEBODY = 4242  # a uid that owns nothing
PLANTED = "pl4nted"
# Says on stdout what worked that must not. Its arguments: directories that are hidden.
ESCAPES = f"""
exec 2>/dev/null
out() {{ echo "OUT $1"; }}
echo "began as $(id -u)"
[ -w . ] && touch made || echo "the workspace cannot be written"
for hidden in "$@"; do
    umount -l "$hidden" && out "unmount $hidden"
    umount "$hidden" && out "unmount $hidden"
    mount --bind "$hidden/.." /mnt && out "bind mount"
    grep -rqs {PLANTED} "$hidden" && out "read $hidden"
done
mount -o remount,rw / && out "remount"
mount -o remount,bind,rw / && out "remount bind"
mount -t tmpfs none /mnt && out "mount"
touch /baton-was-here && rm /baton-was-here && out "write /"
touch /etc/baton-was-here && rm /etc/baton-was-here && out "write /etc"
true >> /proc/sys/kernel/core_pattern && out "core_pattern"
true >> /proc/sysrq-trigger && out "sysrq-trigger"
head -c 1 /etc/shadow && out "read shadow"
unshare --user --map-root-user true && out "a user namespace"
unshare --mount true && out "a mount namespace"
nsenter --target 1 --mount true && out "enter"
chroot /proc/1/root true && out "chroot"
mknod disk b 8 0 && out "mknod"
setpriv --reuid 0 true && out "become root"
touch given && chown 0 given && [ "$(id -u)" != 0 ] && out "give a file to root"
ls -l /proc/[0-9]*/exe | grep -q postgres && out "see the host's processes"
grep -E '^Cap(Prm|Eff|Bnd|Amb)' /proc/self/status | grep -vq 0000000000000000 && out "capabilities"
grep -q 'NoNewPrivs:.1' /proc/self/status || out "gain rights by a program"
echo ended
"""
RUN = """
import sys
from uuid import UUID
from tasks.build import do_build
from worker.agent.claude import claude
from worker.job.run import run
print(run(UUID(sys.argv[1]), do_build, agent=claude))
"""


def tries(at_work: AtWork, *hidden: Path) -> str:
    """Lay the attempts into the project's workspace; the prompt that makes them."""
    at_work.place.mkdir(parents=True, exist_ok=True)
    (at_work.place / "escape.sh").write_text(ESCAPES)
    return f"run: sh escape.sh {' '.join(map(str, hidden))} > found.txt"


def found(at_work: AtWork) -> tuple[str, list[str]]:
    """As which uid the agent tried, and what worked."""
    began, *worked, ended = (at_work.place / "found.txt").read_text().splitlines()
    assert ended == "ended"
    return began.removeprefix("began as "), worked


def in_box(script: str, workspace: Path) -> list[str]:
    """What a shell says that the keeper starts in the box of a turn, where the CLI would be."""
    with kept(box.box, script, workspace) as keeper:
        said, told = keeper.communicate()
        assert not keeper.returncode, told
        return said.decode().splitlines()


@contextmanager
def kept(make: Make, script: str, workspace: Path) -> Generator["subprocess.Popen[bytes]"]:
    """A keeper whose agent is a shell, in a box made like this."""
    own = own_directory(uuid4())
    own.mkdir(parents=True)
    made = make(workspace.resolve(), own=own, cli=Path(cli()).resolve(), writable=True)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(KEEPER), "-c", script],
        cwd=workspace,
        env={**os.environ, "BATON_CLI": "/bin/sh", **made.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_as_somebody(at_work: AtWork, job_id: UUID) -> None:
    """Deliver the job to a worker that is not root: what lies here becomes its own."""
    command = [sys.executable, "-c", RUN, str(job_id)]
    if os.geteuid() == 0:
        here = Path.cwd()
        for folder, folders, names in os.walk(here):
            for name in (".", *folders, *names):
                os.chown(Path(folder, name), SOMEBODY, SOMEBODY, follow_symlinks=False)
        command = [*_as_somebody(CODE, Path(sys.base_prefix), here), *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "done" in done.stdout, done.stdout + done.stderr


def _as_somebody(*needed: Path) -> list[str]:
    """What starts a program as another user, who finds the way to these places."""
    ways = {place: _closed(place) for place in needed}
    words = ["bwrap", "--die-with-parent", "--dev-bind", "/", "/"]
    for closed in {each for each in ways.values() if each}:
        words += ("--perms", "1777", "--tmpfs", str(closed))
    for place, closed in ways.items():
        if closed:
            between = [each for each in reversed(place.parents) if closed in each.parents]
            words += (w for each in between for w in ("--perms", "1777", "--dir", str(each)))
            words += ("--bind", str(place), str(place))
    user = ("--reuid", str(SOMEBODY), "--regid", str(SOMEBODY), "--clear-groups")
    return [*words, "--", "setpriv", *user, "--"]


def _closed(place: Path) -> Path | None:
    return next((p for p in reversed(place.parents) if not p.stat().st_mode & 0o001), None)
