"""The agent's one way out: the egress proxy's socket, and the bridge to it (worker/sandbox/bridge.py).

in a box         /run/baton/egress/proxy.sock, and loopback of the box's own: nothing else
without a box    the same bridge on the host's loopback; nobody keeps the agent to it
"""

import sys
import time
from functools import cache
from pathlib import Path

from config import egress
from worker.failures.errors import AgentFailed
from worker.sandbox import home

BRIDGE = Path(__file__).with_name("bridge.py")
INSIDE = Path("/run/baton")
WAIT = 15.0  # seconds for a proxy that starts just now (worker/sandbox/own_proxy.py)
PAUSE = 0.05


def files() -> list[str]:
    """What shows it in a box, as arguments of bubblewrap. Raises OSError."""
    program = home.put("bridge.py", BRIDGE.read_text(), mode=0o644)
    place = INSIDE / "egress"
    # There may be no proxy yet where a box is only tried.
    return [
        *(word for each in (INSIDE, place) for word in ("--perms", "0755", "--dir", str(each))),
        *("--ro-bind", str(program), str(INSIDE / "bridge.py")),
        *("--ro-bind-try", str(egress.home()), str(place)),
    ]


def bridge(*, boxed: bool) -> tuple[str, ...]:
    """What is put before the agent's program."""
    place = INSIDE / "egress" if boxed else egress.home()
    program = INSIDE / "bridge.py" if boxed else BRIDGE
    return (_python(), "-I", "-S", str(program), str(place))


@cache
def _python() -> str:
    """Its libraries are found from where it lies, and that is in every box."""
    return str(Path(sys.executable).resolve())


def check() -> None:
    """Raises AgentFailed where no proxy answers: without it no agent could ask its model."""
    end = time.monotonic() + WAIT
    while not egress.listens():
        if time.monotonic() > end:
            raise AgentFailed(
                "egress_away",
                f"No egress proxy answers in {egress.home()}: start `egress` of the Procfile on"
                " this host, or correct BATON_EGRESS_HOME.",
            )
        time.sleep(PAUSE)
