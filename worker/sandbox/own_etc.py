"""Files of /etc that the box has of its own: nothing of the host's users, names or addresses.

Many programs ask for the user's name (`whoami`, ssh, Python's getpass, Node's os.userInfo()),
and the host may know none for the agent's uid. No name but localhost is resolved in the box.
"""

from pathlib import Path

from worker.sandbox import home

NAME = "agent"
HOST = "box"
NOBODY = 65534
ASKED_AT_ONCE = "# Names are not resolved here.\noptions timeout:1 attempts:1\n"


def files(uid: int, at_home: Path) -> list[str]:
    """What shows them, as arguments of bubblewrap; `at_home` is the agent's HOME. Raises OSError."""
    users = {0: ("root", "/"), NOBODY: ("nobody", "/"), uid: (NAME, str(at_home))}
    own = {
        "passwd": "".join(
            f"{name}:x:{each}:{each}:{name}:{place}:/bin/sh\n"
            for each, (name, place) in users.items()
        ),
        "group": "".join(f"{name}:x:{each}:\n" for each, (name, _) in users.items()),
        "hosts": f"127.0.0.1 localhost {HOST}\n::1 localhost\n",
        "hostname": f"{HOST}\n",
        "resolv.conf": ASKED_AT_ONCE,
    }
    words: list[str] = []
    for name, text in own.items():
        # Agents of two uids may share the directory, as root's and another's after an upgrade.
        ours = home.put(f"{name}-{uid}" if str(uid) in text else name, text, mode=0o644)
        words += ("--ro-bind", str(ours), f"/etc/{name}")
    return words
