"""What a machine may lack. A test that needs it says so with one of these marks.

At the end of a run the tests left out for this are counted aloud (tests/conftest.py).
"""

import os
import shutil
import subprocess
from ctypes.util import find_library

import pytest

from worker.sandbox import groups

SYSTEM = f"{os.environ['PATH']}:/usr/sbin"
LACKS = "this machine lacks "


def _works(*command: str) -> bool:
    if not shutil.which(command[0]):
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _needs(name: str, *, there: bool) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not there, reason=LACKS + name)


BOXES = _works("bwrap", "--unshare-user", "--ro-bind", "/", "/", "true")
needs_bubblewrap = _needs("bubblewrap that may make namespaces", there=BOXES)
needs_seccomp = _needs("libseccomp", there=find_library("seccomp") is not None)
needs_control_groups = _needs(
    "control groups (cgroup v2), and root to make some",
    there=os.geteuid() == 0 and os.access(groups.mounted() or "/nowhere", os.W_OK),
)
needs_setpriv = _needs("setpriv", there=_works("setpriv", "--version"))
needs_user_namespaces = _needs("user namespaces", there=_works("unshare", "--user", "true"))
needs_root = _needs("root", there=os.geteuid() == 0)
needs_iptables = _needs("iptables, and root to use it", there=_works("iptables", "-L", "-n"))
needs_mounts = _needs(
    "root that may mount",
    there=_works("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"),
)
needs_pid_namespaces = _needs(
    "root that may make namespaces",
    there=_works("unshare", "--pid", "--fork", "--mount-proc", "true"),
)
needs_sshd = _needs(
    "sshd and ssh", there=bool(shutil.which("sshd", path=SYSTEM) and shutil.which("ssh"))
)
needs_pgbouncer = _needs("pgbouncer", there=bool(shutil.which("pgbouncer", path=SYSTEM)))
# Debian's Redis, in its package redis-tools: the one that comes with the checkout has no TLS.
REDIS_WITH_TLS = shutil.which("redis-check-rdb", path=SYSTEM)
needs_redis_with_tls = _needs("redis-tools of Debian", there=bool(REDIS_WITH_TLS))
needs_compiler = _needs("a C compiler", there=_works("cc", "--version"))
NETWORKS = _works(
    *("unshare", "--net", "ip", "link", "add", "name", "here", "type", "veth")
) and _works("socat", "-V")
needs_networks = _needs("root that may make network namespaces, and socat", there=NETWORKS)


def without_override() -> list[str]:
    """What starts a command that cannot read what its mode forbids, as root can."""
    if os.geteuid():
        return []
    gone = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={gone}", f"--inh-caps={gone}"]
