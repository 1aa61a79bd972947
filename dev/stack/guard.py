"""`python -m dev.stack.guard NAME VALUE SECONDS`: the last look round for a supervisor that was killed.

Its standard input is a pipe that only the supervisor holds. When that closes, however the
supervisor ended, the leaders among all that carries NAME=VALUE in its environment have so many seconds
to end: the kernel has told them. What is left then, or without a leader, is killed. After a
clean stop nothing is left, and the guard goes at once.
"""

import os
import signal
import sys
import time

from dev.stack import processes

LOOK = 0.1  # seconds between two looks


def main() -> int:
    name, value, seconds = sys.argv[1:]
    sys.stdin.buffer.read()
    deadline = time.monotonic() + float(seconds)
    while left := processes.carrying(name, value):
        if time.monotonic() > deadline or not any(_leads(process.pid) for process in left):
            processes.kill(left, signal.SIGKILL)
        time.sleep(LOOK)
    return 0


def _leads(pid: int) -> bool:
    """Whether it leads a session: nobody asks the others to end once no leader is left."""
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


if __name__ == "__main__":
    sys.exit(main())
