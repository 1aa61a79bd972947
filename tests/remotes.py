"""Git servers on loopback: http as git's own `http-backend` gives it, and ssh as a real sshd does.

with http_server(root, password="secret") as server: server.url  # http://127.0.0.1:1234
"""

import base64
import getpass
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dev.stack.processes import free_port
from tests.machine import SYSTEM
from tests.waiting import wait_until

SSHD = shutil.which("sshd", path=SYSTEM)
USER = "ann"  # of http, where a password is asked for


@dataclass
class GitServer:
    """Where it answers, and the directory that holds its repositories."""

    url: str
    root: Path
    asked: list[str] = field(default_factory=list[str])  # path of each request over http

    def provide(self, project_id: str) -> Path:
        """Make an empty repository there, as the server's people do."""
        place = self.root / f"{project_id}.git"
        subprocess.run(["git", "init", "-q", "--bare", place], check=True)
        subprocess.run(
            ["git", f"--git-dir={place}", "config", "http.receivepack", "true"], check=True
        )
        return place


@contextmanager
def http_server(root: Path, *, password: str = "") -> Generator[GitServer]:
    """Serve the repositories below `root`, to those who know the password, if there is one."""
    told = GitServer("", root)

    class Backend(_Backend):
        server_root, secret, asked = root, password, told.asked

    with ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


class _Backend(BaseHTTPRequestHandler):
    server_root: Path
    secret: str
    asked: list[str]

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.asked.append(path)
        if self.secret and not self._known():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self._body()
        done = subprocess.run(
            ["git", "http-backend"],
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.server_root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            },
            input=body,
            capture_output=True,
            check=False,
        )
        self._answer(done.stdout)

    do_POST = do_GET  # noqa: N815 - the name is the standard library's

    def _known(self) -> bool:
        wanted = base64.b64encode(f"{USER}:{self.secret}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {wanted}"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, told: bytes) -> None:
        head, _, body = told.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().splitlines()]
        status = dict(fields).get("Status", "200 OK")
        self.send_response(int(status.split()[0]))
        for name, value in fields:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Nothing: git says what went wrong."""


@contextmanager
def ssh_server(root: Path, home: Path) -> Generator[tuple[GitServer, str]]:
    """A real sshd for this user with a key of its own, and the PATH with which ssh knows both.

    ssh reads the configuration in the home of its user, whatever HOME says: in its place
    stands a program of that name before it on the PATH.
    """
    assert SSHD
    home.mkdir()
    port = free_port()
    for name in ("host", "key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name], check=True
        )
    (home / "config").write_text(
        f"IdentityFile {home}/key\nIdentitiesOnly yes\nUserKnownHostsFile {home}/known\n"
    )
    public = " ".join((home / "host.pub").read_text().split()[:2])
    (home / "known").write_text(f"[127.0.0.1]:{port} {public}\n")
    (home / "sshd").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nPidFile none\n"
        f"AuthorizedKeysFile {home}/key.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    ssh = home / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {home}/config "$@"\n')
    ssh.chmod(0o755)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd of root wants it
    with subprocess.Popen([SSHD, "-D", "-f", home / "sshd"]) as run:
        try:
            _wait_until_open(port)
            url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{root}"
            yield GitServer(url, root), f"{ssh.parent}:{os.environ['PATH']}"
        finally:
            run.terminate()


def _wait_until_open(port: int) -> None:
    def answers() -> bool:
        with socket.socket() as to:
            return to.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, description="sshd answers")
