"""The bridge: what an agent in its box finds of the network, a port of loopback that leads to the
egress proxy's socket.

    CLI, tools ──► 127.0.0.1:PORT ──► the directory's proxy.sock ──► egress proxy

It runs on the standard library alone (`python -I -S bridge.py DIRECTORY PROGRAM ARGUMENTS`). It
listens, leaves a child that carries, and becomes the program: so the port is there before the
program is, and the child ends with it. The program has the turn's token as its key, and finds
the way in ANTHROPIC_BASE_URL and HTTPS_PROXY.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time

PORT = 41443  # in a box it is free; elsewhere another will do
PATIENCE = 30.0  # seconds for which a proxy is waited for that starts anew
PAUSE = 0.1  # seconds
CHUNK = 64 * 1024  # bytes
PR_SET_PDEATHSIG = 1
HERE = "127.0.0.1"


def listen() -> socket.socket:
    """A port of loopback."""
    for port in (PORT, 0):
        with contextlib.suppress(OSError):
            return socket.create_server((HERE, port), backlog=128)
    sys.exit("bridge: no port of loopback can be had")


def ways(port: int, token: str) -> dict[str, str]:
    """What tells programs of it."""
    proxy = f"http://turn:{token}@{HERE}:{port}"
    told = {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "NO_PROXY": f"{HERE},localhost,::1"}
    told |= {name.lower(): value for name, value in told.items()}
    return {"ANTHROPIC_BASE_URL": f"http://{HERE}:{port}", **told}


def reach(directory: int) -> socket.socket | None:
    """A connection to the proxy; by way of the open directory, for a socket's path may be too
    long. None: it does not come back."""
    end = time.monotonic() + PATIENCE
    while True:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(f"/proc/self/fd/{directory}/proxy.sock")
        except OSError:
            line.close()
            if time.monotonic() > end:
                return None
            time.sleep(PAUSE)
        else:
            return line


def carry(here: socket.socket, directory: int) -> None:
    """One connection, both ways, until both ends have said theirs."""
    with here:
        here.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # or a stream's end waits 40 ms
        there = reach(directory)
        if there is None:
            return
        with there:
            back = threading.Thread(target=copy, args=(there, here), daemon=True)
            back.start()
            copy(here, there)
            back.join()


def copy(one: socket.socket, other: socket.socket) -> None:
    """Until the end of what comes, which is passed on as such; or until either breaks."""
    with contextlib.suppress(OSError):
        while data := one.recv(CHUNK):
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)


def serve(listening: socket.socket, directory: int) -> None:
    """Carry each connection, for good."""
    while True:
        with contextlib.suppress(OSError):
            here, _ = listening.accept()
            threading.Thread(target=carry, args=(here, directory), daemon=True).start()


def leave_a_carrier(listening: socket.socket, directory: int) -> None:
    """Begin the child. It holds none of the program's pipes, or who reads them waits for it."""
    program = os.getpid()
    if os.fork():
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != program:
        os._exit(1)
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        os.dup2(os.open(os.devnull, mode), number)
    serve(listening, directory)


def main() -> None:
    """Listen, and become the program."""
    _, place, *command = sys.argv
    directory = os.open(place, os.O_PATH | os.O_DIRECTORY)
    listening = listen()
    environ = os.environ | ways(
        listening.getsockname()[1], os.environ.get("ANTHROPIC_API_KEY", "")
    )
    leave_a_carrier(listening, directory)
    try:
        os.execvpe(command[0], command, environ)
    except OSError as exc:
        sys.exit(f"bridge: cannot start {command[0]}: {exc.strerror}")


if __name__ == "__main__":
    main()
