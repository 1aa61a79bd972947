"""Hosts that share nothing but Postgres and Redis: each with a disk and a network of its own.

    root namespace   Postgres, Redis, the model, the relay      127.0.0.1
                       │ socat                    │ socat
    10.x.y.1 ──────────┴── veth ── 10.x.y.2     10.x.z.1 ── veth ── 10.x.z.2
                                  host a                             host b

Where the machine makes no network namespaces the hosts have disks of their own, and one network.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from tests.acceptance.outside import Baton
from tests.waiting import wait_until

STARTS = 60.0  # seconds until a worker on a busy machine answers
ADDRESSES = ("DATABASE_URL", "REDIS_URL", "ANTHROPIC_BASE_URL")


@dataclass
class Network:
    """A network namespace, and the address at which it finds what is outside."""

    name: str
    outside: str

    def run(self, *command: str) -> list[str]:
        """The command, to be run inside."""
        return ["ip", "netns", "exec", self.name, *command]


@dataclass
class Host:
    """One machine of the fleet: its directory is its disk."""

    name: str
    disk: Path
    baton: Baton
    network: Network | None
    worker: "subprocess.Popen[bytes] | None" = None
    egress: "subprocess.Popen[bytes] | None" = None

    @property
    def workspaces(self) -> Path:
        return self.disk / "srv"

    def environment(self) -> dict[str, str]:
        """What the worker is given: nothing of it names a place of another host."""
        env = {
            **self.baton.up.env,
            "HOME": str(self.disk / "home"),
            "BATON_AGENT_HOME": str(self.disk / "agent"),
            "BATON_WORKSPACES": str(self.workspaces),
            "TMPDIR": str(self.disk / "tmp"),
        }
        if self.network:
            for name in ADDRESSES:
                env[name] = env[name].replace("127.0.0.1", self.network.outside)
            env["NO_PROXY"] = env["no_proxy"] = self.network.outside
        return env

    @contextmanager
    def works(self) -> Generator[None]:
        """The only worker there is, on an empty disk; all that it left there is gone then."""
        assert not list(self.disk.iterdir())
        for folder in ("home", "agent", "srv", "tmp"):
            (self.disk / folder).mkdir()
        log = self.disk.with_name(f"{self.name}.log")
        self._start(log)
        try:
            yield
        finally:
            self._stop()
            shutil.rmtree(self.disk)
            self.disk.mkdir()

    def _start(self, log: Path) -> None:
        celery = [sys.executable, "-m", "celery", "-A", "worker.app", "worker"]
        command = [*celery, "-n", f"{self.name}@%h"]
        with log.open("ab") as out:
            self.egress = self._begun([sys.executable, "-m", "egress"], out)
            self.worker = self._begun(command, out)
        wait_until(
            lambda: self.baton.rows("select 1 from workers where id like %s", f"{self.name}@%"),
            timeout=STARTS,
            description=f"the worker of host {self.name} (its log: {log})",
        )

    def _begun(self, command: list[str], out: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self.network.run(*command) if self.network else command,
            cwd=self.disk,
            env=self.environment(),
            stdout=out,
            stderr=out,
        )

    def _stop(self) -> None:
        for process in filter(None, (self.worker, self.egress)):
            os.kill(process.pid, signal.SIGTERM)
            process.wait(30)
        self.worker = self.egress = None


@contextmanager
def hosts(baton: Baton, *names: str, apart: bool) -> Generator[list[Host]]:
    """So many hosts with empty disks; `apart`: each in a network namespace of its own."""
    urls = [urlsplit(baton.up.env[name]).port or 0 for name in ADDRESSES]
    with ExitStack() as stays:
        yield [
            Host(
                name,
                _disk(baton.root / "hosts" / name),
                baton,
                stays.enter_context(_network(n, urls)) if apart else None,
            )
            for n, name in enumerate(names)
        ]


def _disk(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


@contextmanager
def _network(number: int, ports: list[int]) -> Generator[Network]:
    """A namespace that reaches these ports of our loopback, and nothing else of us."""
    name = f"bt{random.randrange(2**20):x}{number}"
    prefix = f"10.{random.randrange(64, 250)}.{random.randrange(250)}"
    network = Network(name, f"{prefix}.1")
    with ExitStack() as stays:
        _ip("netns", "add", name)
        stays.callback(_ip, "netns", "del", name)  # and the pair of interfaces with it
        _ip(
            "link",
            "add",
            "name",
            name,
            "type",
            "veth",
            "peer",
            "name",
            "outside",
            "netns",
            name,
        )
        _ip("addr", "add", f"{prefix}.1/30", "dev", name)
        _ip("link", "set", name, "up")
        _ip("-n", name, "addr", "add", f"{prefix}.2/30", "dev", "outside")
        _ip("-n", name, "link", "set", "outside", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        for port in ports:
            stays.callback(_end, _forward(network.outside, port))
        yield network


def _forward(address: str, port: int) -> "subprocess.Popen[bytes]":
    listen = f"TCP-LISTEN:{port},bind={address},fork,reuseaddr"
    return subprocess.Popen(["socat", listen, f"TCP:127.0.0.1:{port}"], start_new_session=True)


def _end(forwarder: "subprocess.Popen[bytes]") -> None:
    os.killpg(forwarder.pid, signal.SIGTERM)
    forwarder.wait(10)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
