"""The bridge: what an agent in its box finds of the network, a port of loopback that leads to the
egress proxy's socket.

    CLI, tools ──► 127.0.0.1:PORT ──► the directory's proxy.sock ──► egress proxy

It runs on the standard library alone (`python -I -S bridge.py DIRECTORY PROGRAM ARGUMENTS`). It
listens, leaves a child that carries, and becomes the program: so the port is there before the
program is, and the child ends with it. The program has the turn's token as its key, or as its
bearer, and finds the way in ANTHROPIC_BASE_URL and HTTPS_PROXY.

Every turn waits for it, so it takes what lies below `socket` and `threading`: with what these
import it took 29 ms of a processor to start, and takes 14.
"""

import _socket
import _thread
import os
import sys
import time

PORT = 41443  # in a box it is free; elsewhere another will do
PATIENCE = 30.0  # seconds for which a proxy is waited for that starts anew
PAUSE = 0.1  # seconds
LOOK_EVERY = 1.0  # second: whether the program is still there
CHUNK = 64 * 1024  # bytes
HERE = "127.0.0.1"
KEY, BEARER = "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"
# Set where the model is Anthropic's own.
ANTHROPICS = "_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL"
TCP = (_socket.AF_INET, _socket.SOCK_STREAM)
UNIX = (_socket.AF_UNIX, _socket.SOCK_STREAM)


def listen() -> _socket.socket:
    """A port of loopback."""
    for port in (PORT, 0):
        line = _socket.socket(*TCP)
        line.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        try:
            line.bind((HERE, port))
            line.listen(128)
        except OSError:
            line.close()
        else:
            return line
    sys.exit("bridge: no port of loopback can be had")


def ways(port: int, token: str) -> dict[str, str]:
    """What tells programs of it."""
    proxy = f"http://turn:{token}@{HERE}:{port}"
    told = {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "NO_PROXY": f"{HERE},localhost,::1"}
    told |= {name.lower(): value for name, value in told.items()}
    return {"ANTHROPIC_BASE_URL": f"http://{HERE}:{port}", **told}


def bearing(environ: dict[str, str]) -> dict[str, str]:
    """The environment of the program. With a key of Anthropic's own the CLI asks there, before
    anything else, what an organization allows; nobody lets it, and it tries for 5 s. For a bearer
    it does not ask."""
    if not environ.get(ANTHROPICS):
        return environ
    others = {name: value for name, value in environ.items() if name != KEY}
    return {**others, BEARER: environ.get(KEY, "")}


def reach(directory: int) -> _socket.socket | None:
    """A connection to the proxy; by way of the open directory, for a socket's path may be too
    long. None: it does not come back."""
    end = time.monotonic() + PATIENCE
    while True:
        line = _socket.socket(*UNIX)
        try:
            line.connect(f"/proc/self/fd/{directory}/proxy.sock")
        except OSError:
            line.close()
            if time.monotonic() > end:
                return None
            time.sleep(PAUSE)
        else:
            return line


def carry(here: _socket.socket, directory: int) -> None:
    """One connection, both ways, until both ends have said theirs."""
    there = None
    try:
        # Or a stream's end waits 40 ms.
        here.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        if there := reach(directory):
            exchange(here, there)
    except OSError:
        return  # who asked has gone
    finally:
        here.close()
        if there:
            there.close()


def exchange(here: _socket.socket, there: _socket.socket) -> None:
    """Carry both ways at once, until both are done."""
    back = _thread.allocate_lock()
    back.acquire()

    def answer() -> None:
        copy(there, here)
        back.release()

    _thread.start_new_thread(answer, ())
    copy(here, there)
    back.acquire()


def copy(one: _socket.socket, other: _socket.socket) -> bool:
    """Until the end of what comes, which is passed on as such; or until either breaks."""
    try:
        while data := one.recv(CHUNK):
            other.sendall(data)
    except OSError:
        return end(other)
    return end(other)


def end(line: _socket.socket) -> bool:
    """Say that no more comes; False where nobody is there any more to hear it."""
    try:
        line.shutdown(_socket.SHUT_WR)
    except OSError:
        return False
    return True


def serve(listening: _socket.socket, directory: int, program: int) -> None:
    """Carry each connection, for as long as the program is there."""
    listening.settimeout(LOOK_EVERY)
    while os.getppid() == program:
        try:
            here = _socket.socket(fileno=listening._accept()[0])  # pyright: ignore
            _thread.start_new_thread(carry, (here, directory))
        except TimeoutError:
            continue
        except OSError:
            time.sleep(PAUSE)  # who asked has gone, or there is no descriptor left


def leave_a_carrier(listening: _socket.socket, directory: int) -> None:
    """Begin the child. It holds none of the program's pipes, or who reads them waits for it."""
    program = os.getpid()
    if os.fork():
        return
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        os.dup2(os.open(os.devnull, mode), number)
    try:
        serve(listening, directory, program)
    finally:
        os._exit(0)  # with all connections that are open


def main() -> None:
    """Listen, and become the program."""
    _, place, *command = sys.argv
    directory = os.open(place, os.O_PATH | os.O_DIRECTORY)
    listening = listen()
    told = ways(listening.getsockname()[1], os.environ.get(KEY, ""))
    environ = bearing(dict(os.environ) | told)
    leave_a_carrier(listening, directory)
    try:
        os.execvpe(command[0], command, environ)
    except OSError as exc:
        sys.exit(f"bridge: cannot start {command[0]}: {exc.strerror}")


if __name__ == "__main__":
    main()
