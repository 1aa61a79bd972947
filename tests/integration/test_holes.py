"""Holes that agents' boxes had elsewhere, each tried by the real CLI in ours, turn after turn.

Others have their test where the matter has its own: what an agent does to leave its box
(test_box.py), what it may ask of the kernel (test_syscalls.py), what a turn may use
(test_bounds.py), what a workspace may hold (test_workspace_size.py), the project's settings and
links (test_turns_data.py), turns that only read (test_reading.py), git (test_agents_git.py).
"""

import json
from pathlib import Path

from config.settings import settings
from tests.machine import needs_bubblewrap
from tests.running import AtWork, P

pytestmark = needs_bubblewrap


def test_settings_that_a_turn_leaves_run_nothing_in_the_next(at_work: AtWork):
    """CVE-2026-25725, CVE-2025-59536: a missing `.claude/settings.json` is made in the box."""
    hook = [{"matcher": "", "hooks": [{"type": "command", "command": "touch ran"}]}]
    told = json.dumps({"hooks": dict.fromkeys(("SessionStart", "PreToolUse", "Stop"), hook)})
    places = "$CLAUDE_CONFIG_DIR ~/.claude .claude"
    at_work.build(
        f"run: for p in {places}; do mkdir -p $p; echo '{told}' > $p/settings.json; done"
    )
    job = at_work.build("run: echo second > second.txt")
    assert job.state == "done"
    assert (at_work.place / ".claude" / "settings.json").exists()
    assert (at_work.place / "second.txt").exists()
    assert not (at_work.place / "ran").exists()


def test_a_link_that_a_shell_made_is_not_written_or_read_through(
    at_work: AtWork, tmp_path: Path
):
    """CVE-2026-39861, CVE-2026-25724, CVE-2026-50549: also one that leads nowhere yet."""
    (outside := tmp_path / "outside").mkdir()
    outside.chmod(0o777)
    (outside / "secret.txt").write_text("pl4nted")
    job = at_work.build(
        f"run: ln -s {outside} way; ln -s {outside}/new.txt new; ln -s loop loop\n"
        "write way/a.txt: through\nwrite new: through\nwrite loop: through\nread way/secret.txt"
    )
    assert job.state == "done"
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]
    assert (outside / "secret.txt").read_text() == "pl4nted"
    assert not any("pl4nted" in json.dumps(seen.body) for seen in at_work.model.requests)


def test_nothing_that_a_turn_leaves_for_a_shell_reaches_the_next(at_work: AtWork):
    """CVE-2026-22708, CVE-2026-46406: profiles, and names in /tmp that can be foreseen."""
    at_work.build(
        "run: for f in ~/.bashrc ~/.profile ~/.bash_profile /tmp/known; do"
        " echo 'touch $OLDPWD/poisoned poisoned' > $f; done; ls ~ -A | wc -l > left.txt"
    )
    at_work.build(
        "run: bash -lic true; ls -A ~ /tmp | grep -cE 'bashrc|profile|known' > found.txt"
    )
    assert int((at_work.place / "left.txt").read_text()) >= 3
    assert (at_work.place / "found.txt").read_text() == "0\n"
    assert not list(at_work.place.rglob("poisoned"))


def test_an_agent_does_not_choose_where_the_next_turn_works(at_work: AtWork):
    """CVE-2025-59532, CVE-2026-50548: the workspace is moved, removed, replaced by a link."""
    other = settings().workspaces / "theirs"
    other.mkdir(parents=True)
    at_work.build(
        "write a.txt: one\n"
        f"run: cd ..; mv {P} moved; rm -r {P}; rmdir {P}; ln -sfn {other} {P}; ln -s / {other}/x"
    )
    assert at_work.build("run: pwd > b.txt").state == "done"
    assert not at_work.place.is_symlink()
    assert (at_work.place / "b.txt").read_text().strip() == str(at_work.place.resolve())
    assert list(other.iterdir()) == []


def test_no_socket_of_the_host_is_shown_in_the_box(at_work: AtWork):
    at_work.build(
        "run: find / -path /proc -prune -o -type s -print > found.txt 2>/dev/null; ls -A /run >> found.txt"
    )
    found = (at_work.place / "found.txt").read_text().splitlines()
    own = (str((settings().agent_home / "tmp").resolve()), "/tmp/cc-socks")
    # The proxy's is in a directory that its user cannot list.
    assert [path for path in found if not path.startswith(own)] == ["baton"]
