"""The box of an agent holds, whoever the worker is; where none holds, no agent starts."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from config.settings import settings
from dev.stack.environment import without_box
from dev.stack.procfile import CODE
from tests.boxes import PLANTED, found, in_box, kept, run_as_somebody, tries
from tests.conftest import Configure
from tests.machine import needs_bubblewrap, needs_pid_namespaces, needs_root
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from worker.cli.doctor import host
from worker.client import Build
from worker.process import identity
from worker.sandbox import box, home, probe, syscalls
from worker.sandbox.below import descendants
from worker.sandbox.box import NAMESPACES, Way
from worker.sandbox.tries import TRIES

pytestmark = needs_bubblewrap


CORE_PATTERN = "an agent could write /proc/sys/kernel/core_pattern"


def theirs(at_work: AtWork) -> Path:
    """Another project's workspace, with something in it."""
    place = settings().workspaces / "theirs"
    place.mkdir(parents=True)
    (place / "secret.txt").write_text(PLANTED)
    return place


@needs_root
def test_the_agent_of_a_worker_that_is_root_does_not_leave_its_box(at_work: AtWork):
    other = theirs(at_work)
    job = at_work.build(tries(at_work, other, settings().agent_home, Path.home()))
    assert job.state == "done"
    assert found(at_work) == (str(settings().agent_uid), [])
    assert [path.name for path in other.iterdir()] == ["secret.txt"]


def test_the_agent_of_a_worker_that_is_not_root_does_not_leave_its_box(at_work: AtWork):
    other = theirs(at_work)
    job_id = at_work.ask(Build(project=P, user=U, prompt=tries(at_work, other, Path.home())))
    run_as_somebody(at_work, job_id)
    assert at_work.job(job_id).state == "done"
    _, worked = found(at_work)
    assert worked == []


def test_a_folder_of_path_that_a_worker_may_not_look_into_keeps_no_job_waiting(
    at_work: AtWork, tmp_path: Path
):
    closed = tmp_path / "closed"
    (closed / "bin").mkdir(parents=True)
    closed.chmod(0)
    at_work.configure(
        PATH=f"{os.environ['PATH']}:{closed / 'bin'}",
        NODE_EXTRA_CA_CERTS=str(closed / "ca.pem"),
    )
    job_id = at_work.ask(Build(project=P, user=U, prompt="say hello"))
    run_as_somebody(at_work, job_id)
    assert at_work.job(job_id).state == "done"
    closed.chmod(0o700)


@needs_root
@pytest.mark.parametrize(
    "more", [(), ("--cap-drop", "ALL"), ("--uid", "1000", "--gid", "1000")]
)
def test_a_box_of_root_that_only_looks_closed_is_found_out(
    at_work: AtWork, more: tuple[str, ...]
):
    way = Way(("bwrap", *NAMESPACES, *more))
    assert probe.fault(way.box, owner=None) == CORE_PATTERN


WAYS = """
from worker.sandbox import box, probe
for way in box.ways("bwrap", 61000):
    print(probe.fault(way.box, owner=way.owner))
"""
APART = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@needs_root
@pytest.mark.parametrize(
    "around", [pytest.param((), id="here"), pytest.param(APART, marks=needs_pid_namespaces)]
)
def test_every_way_to_a_box_holds_wherever_a_root_worker_runs(
    at_work: AtWork, around: tuple[str, ...]
):
    told = subprocess.run(
        [*around, sys.executable, "-c", WAYS], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == ["None"]


@pytest.fixture
def without_another_user(
    at_work: AtWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AtWork]:
    """Nobody can become another user: `setpriv` refuses, as where the rights for it are missing."""
    (refusing := tmp_path / "programs" / "setpriv").parent.mkdir()
    refusing.write_text("#!/bin/sh\necho 'setpriv: setresuid failed' >&2\nexit 127\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{refusing.parent}:{os.environ['PATH']}")
    box.forget()
    yield at_work
    box.forget()


@needs_root
def test_a_worker_that_is_root_and_cannot_become_another_starts_no_agent(
    without_another_user: AtWork,
):
    at_work = without_another_user
    job = at_work.build("run: id -u > who.txt")
    assert (job.state, job.error_class, job.attempts) == ("queued", "box_refused", 0)
    assert job.error
    assert "(setpriv: setresuid failed); run the worker as another user than root" in job.error
    assert at_work.model.requests == ()
    at_work.configure(BATON_SANDBOX="off")  # by choice
    assert in_box("id -u", at_work.place) == ["0"]


@needs_root
def test_a_box_that_does_not_hold_is_told_of_by_doctor_and_worker(
    without_another_user: AtWork,
):
    state, text = checked()
    assert (state, "No agent is started" in text) == ("fail", True)
    assert box.told() == "refused"
    with capture_logs() as logged:
        box.warn_of_none()  # as a worker starts
    assert [(line["event"], line["why"]) for line in logged] == [("box.refused", text)]


def test_without_bubblewrap_no_agent_starts_unless_that_is_chosen(
    at_work: AtWork, monkeypatch: pytest.MonkeyPatch
):
    git = shutil.which("git")
    assert git
    (programs := Path.cwd() / "programs").mkdir()
    (programs / "git").symlink_to(git)
    monkeypatch.setenv("PATH", str(programs))
    state, text = checked()
    assert (state, "bubblewrap is missing" in text) == ("fail", True)
    with capture_logs() as logged:
        box.warn_of_none()
    assert [(line["event"], line["log_level"]) for line in logged] == [("box.refused", "error")]
    job = at_work.build("write a.txt: one")
    assert (job.state, job.error_class) == ("queued", "box_refused")
    assert job.error
    assert "install it, or set BATON_SANDBOX=off" in job.error
    at_work.configure(BATON_SANDBOX="off")
    assert untried()[0] == "warn"
    assert box.found().way is None
    assert not box.found().refused


def test_where_somebody_looks_on_agents_go_on_without_bubblewrap_and_that_is_said(
    at_work: AtWork, monkeypatch: pytest.MonkeyPatch
):
    assert without_box({}) is None
    monkeypatch.setenv("PATH", "/nowhere")
    told = without_box({})
    assert told
    assert told.startswith("bubblewrap is missing: agents run with your rights, in no box")
    assert [without_box({"BATON_SANDBOX": mode}) for mode in ("strict", "off")] == [None, None]


@pytest.mark.parametrize("sandbox", ["auto", "strict"])
def test_without_a_filter_doctor_says_what_is_not_held_and_strict_refuses(
    at_work: AtWork, monkeypatch: pytest.MonkeyPatch, sandbox: str
):
    monkeypatch.setitem(sys.modules, "pyseccomp", None)  # as where libseccomp is missing
    syscalls.program.cache_clear()
    at_work.configure(BATON_SANDBOX=sandbox)
    box.forget()
    try:
        state, _ = checked()
        lines = [(line.name, line.state, line.text) for line in host.box_lines()]  # pyright: ignore[reportPrivateUsage]
    finally:
        syscalls.program.cache_clear()
        box.forget()
    assert ("box", "warn", "an agent could trace another process") in lines
    assert state == ("ok" if sandbox == "auto" else "fail")
    if sandbox == "auto":
        assert lines[-1] == ("seccomp", "warn", syscalls.MISSING)


def test_doctor_prints_each_thing_that_was_tried(at_work: AtWork):
    assert checked()[0] == "ok"
    lines = [check for check in host.box_lines() if check.name == "box"]
    assert len(lines) == len(TRIES)
    assert {line.state for line in lines} == {"ok"}


def test_the_modes_are_documented_as_doctor_prints_them():
    page = (CODE / "docs" / "security.md").read_text()
    assert [
        mode for mode, told in box.MODES.items() if f"| `{mode}` | {told} |" not in page
    ] == []


def test_a_box_is_tried_again_when_bubblewrap_has_changed(
    at_work: AtWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bwrap = shutil.which("bwrap")
    assert bwrap
    (own := tmp_path / "programs" / "bwrap").parent.mkdir()
    shutil.copy(bwrap, own)
    monkeypatch.setenv("PATH", f"{own.parent}:{os.environ['PATH']}")
    box.forget()
    first = box.found()
    assert first.way
    assert box.found().lines is first.lines
    own.write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    box._looked.cache_clear()  # pyright: ignore[reportPrivateUsage]  # as when a minute has gone
    assert "broken" in box.found().why
    box.forget()


def checked() -> tuple[str, str]:
    """What doctor says of the box, once a worker was there."""
    for folder in (settings().workspaces, home.turns(), home.files()):
        folder.mkdir(parents=True, exist_ok=True)
    return untried()


@needs_root
def test_what_is_in_a_workspace_is_its_agents_and_what_that_makes_its_workers(
    at_work: AtWork, tmp_path: Path
):
    place, deep = at_work.place, at_work.place / "deep" / "er"
    deep.mkdir(parents=True)
    (deep / "a.txt").write_text("one")  # from before the upgrade, or by people
    for path in (place, place / "deep", deep, deep / "a.txt"):
        path.chmod(path.stat().st_mode & ~0o077)
    at_work.build(
        "edit deep/er/a.txt: one => two\nrun: umask 077; mkdir own && echo mine > own/b && chmod 400 own/b"
    )
    assert (deep / "a.txt").read_text() == "two"
    shutil.rmtree(place)  # our git writes it anew
    job = at_work.build("edit deep/er/a.txt: two => three\nrun: cat own/b > copy.txt")
    assert job.state == "done"
    assert (deep / "a.txt").read_text() == "three"
    assert (place / "copy.txt").read_text() == "mine\n"


@needs_root
def test_what_has_changed_its_user_dies_with_its_keeper_all_the_same(at_work: AtWork):
    at_work.place.mkdir(parents=True)
    (way,) = box.ways("bwrap", 61000)
    script = "setsid sleep 300 & echo up; exec sleep 301"
    with kept(way.box, script, at_work.place) as keeper:
        assert keeper.stdout
        assert keeper.stdout.readline() == b"up\n"
        below = descendants(keeper.pid)
        assert len(below) > 2
        keeper.kill()
        wait_until(lambda: not any(map(identity.started, below)), description="the agent's end")


@needs_root
def test_nothing_outside_of_a_workspace_is_given_to_its_agent(at_work: AtWork, tmp_path: Path):
    (outside := tmp_path / "outside").mkdir()
    for name in ("linked", "named"):
        (outside / name).write_text("theirs")
    (place := at_work.place).mkdir(parents=True)
    (place / "link").symlink_to(outside / "linked")
    (place / "way").symlink_to(outside)
    (place / "named").hardlink_to(outside / "named")
    os.mknod(place / "disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0))
    os.mkfifo(place / "pipe")
    assert in_box("cat named", place) == ["theirs"]
    owners = {path.name: path.lstat().st_uid for path in (*outside.iterdir(), *place.iterdir())}
    agent = settings().agent_uid
    assert owners == {
        "linked": 0,
        "named": 0,
        "disk": 0,
        "link": agent,
        "way": agent,
        "pipe": agent,
    }
    assert outside.stat().st_uid == 0


@needs_root
def test_the_agents_user_has_a_name_and_a_home(at_work: AtWork):
    at_work.place.mkdir(parents=True)
    told = in_box(
        "whoami; id -gn; echo ~agent; touch ~/a /tmp/b /dev/shm/c && echo written",
        at_work.place,
    )
    assert told == ["agent", "agent", "/home/agent", "written"]


def test_of_the_host_the_box_has_what_the_list_names_and_nothing_else(
    at_work: AtWork, tmp_path: Path
):
    other, secret, named = theirs(at_work), Path.cwd() / ".env", tmp_path / "named"
    named.mkdir()
    (named / "font").write_text("a font")
    places = (secret, Path.home() / ".netrc", settings().agent_home / "key", tmp_path / "log")
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(PLANTED)
    at_work.configure(BATON_BOX_READ=str(named))
    at_work.place.mkdir(parents=True)
    looked = " ".join(map(str, (*places, other, "/etc/shadow", "/var/log", "/sys", "/srv")))
    told = in_box(
        f"ls -d {looked} 2>/dev/null; ls /run /home; cat {named}/font; echo; cut -d: -f1 /etc/passwd;"
        f" touch {named}/a /usr/a /dev/a /etc/a /a 2>&1 | grep -vc 'Read-only file system'; true",
        at_work.place,
    )
    user = "agent" if os.geteuid() == 0 else "nobody"
    assert told == [
        "/home:",
        "agent",
        "",
        "/run:",
        "baton",
        "a font",
        *dict.fromkeys(["root", "nobody", user]),
        "0",
    ]


def test_a_directory_of_the_box_holds_as_much_as_is_set(at_work: AtWork):
    at_work.configure(BATON_BOX_TMP=str(2**20))
    at_work.place.mkdir(parents=True)
    fill = "; ".join(
        f"head -c 3000000 /dev/zero > {place}/a" for place in ("/tmp", "~", "/dev/shm")
    )
    told = in_box(f"({fill}) 2>/dev/null; stat -c %s /tmp/a ~/a /dev/shm/a", at_work.place)
    assert [int(size) <= 2**20 for size in told] == [True] * 3


@needs_root
def test_the_uid_of_agents_is_a_setting(at_work: AtWork):
    at_work.place.mkdir(parents=True)
    for uid in ("60999", "60998"):  # what was another's is given on
        at_work.configure(BATON_AGENT_UID=uid)
        box.forget()
        assert in_box("echo one >> who.txt; chmod 600 who.txt; id -u", at_work.place) == [uid]
    assert (at_work.place / "who.txt").read_text() == "one\none\n"


Lay = Callable[[Path], dict[str, str]]


def linked_workspaces(here: Path) -> dict[str, str]:
    (here / "disk").mkdir()
    (here / "workspaces").symlink_to(here / "disk")
    return {"BATON_WORKSPACES": f"{here}/workspaces"}


def both_behind_a_link(here: Path) -> dict[str, str]:
    (here / "disk").mkdir()
    (here / "data").symlink_to("disk")
    return {"BATON_WORKSPACES": f"{here}/data/w", "BATON_AGENT_HOME": f"{here}/data/a"}


def links_in_a_home_that_is_hidden(here: Path) -> dict[str, str]:
    (here / "disk" / "w").mkdir(parents=True)
    hidden = Path(os.environ["HOME"])
    (hidden / "w").symlink_to(here / "disk" / "w")
    (hidden / "a").symlink_to(here / "disk" / "a")
    (here / "disk" / "a").mkdir()
    return {"BATON_WORKSPACES": f"{hidden}/w", "BATON_AGENT_HOME": f"{hidden}/a"}


def a_link_of_links(here: Path) -> dict[str, str]:
    (here / "disk").mkdir()
    (here / "one").symlink_to(here / "disk")
    (here / "two").symlink_to(here / "one")
    return {"BATON_WORKSPACES": f"{here}/two", "BATON_AGENT_HOME": f"{here}/two/../agent"}


@pytest.mark.parametrize(
    "lay",
    [linked_workspaces, both_behind_a_link, links_in_a_home_that_is_hidden, a_link_of_links],
)
def test_directories_may_be_links_or_lie_behind_links(
    at_work: AtWork, tmp_path: Path, configure: Configure, lay: Lay
):
    (here := tmp_path / "here").mkdir()
    configure(**lay(here))
    box.forget()
    assert checked()[0] == "ok"
    at_work.place.mkdir(parents=True)
    assert in_box("pwd && touch made", at_work.place) == [str(at_work.place.resolve())]
    assert (at_work.place / "made").exists()


def test_a_session_goes_on_where_workspaces_and_agent_home_are_links(
    at_work: AtWork, tmp_path: Path, configure: Configure
):
    (here := tmp_path / "here").mkdir()
    configure(**links_in_a_home_that_is_hidden(here))
    job = at_work.build("write a.txt: one")
    assert job.state == "done", job.error
    assert at_work.build("edit a.txt: one => two").state == "done"
    assert (at_work.place / "a.txt").read_text() == "two"
    assert [move[0] for move in at_work.moves()] == ["build", "update"]
    assert at_work.model.requests[-1].prompts[0] == "write a.txt: one"


def test_doctor_tries_the_box_where_turns_have_theirs_and_makes_nothing_for_it(
    at_work: AtWork, tmp_path: Path
):
    assert checked()[0] == "ok"
    for name in ("BATON_WORKSPACES", "BATON_AGENT_HOME"):
        at_work.configure(**{name: str(tmp_path / name)})
        box.forget()
        state, text = untried()
        assert (state, "is there: a worker makes it" in text) == ("warn", True)
        assert not (tmp_path / name).exists()


def untried() -> tuple[str, str]:
    checks = host.box_lines()
    check = next(check for check in checks if check.name == "bubblewrap")
    return check.state, check.text


def test_programs_on_path_are_shown_and_nothing_that_is_hidden_beside_them(
    at_work: AtWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    owners = tmp_path / "home"
    at_work.configure(BATON_WORKSPACES=f"{owners}/app/workspaces")
    theirs(at_work)
    for name, folder in (("hello", "app/bin"), ("goodbye", "bin")):
        (owners / folder).mkdir(parents=True)
        (owners / folder / name).write_text(f"#!/bin/sh\necho {name}\n")
        (owners / folder / name).chmod(0o755)
    (owners / ".netrc").write_text(PLANTED)
    (Path.cwd() / ".env").write_text(f"DATABASE_URL={PLANTED}")
    (link := tmp_path / "link").symlink_to(owners)
    monkeypatch.setenv("PATH", f"{owners}/app/bin:{link}/bin:{os.environ['PATH']}")
    box.forget()
    (at_work.place).mkdir()
    looked = f"{owners} {link}/ {Path.cwd()} /tmp {settings().agent_home}"
    told = in_box(f"hello; goodbye; grep -rsl {PLANTED} {looked}; true", at_work.place)
    assert told == ["hello", "goodbye"]
