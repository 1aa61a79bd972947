"""`baton up`: the services, the model's stand-in if there is no key, and every process.

    services ──► migrate ──► [stand-in model] ──► worker, beat, relay, flower ──► ready
                                   ends after those that use it; the services end last

`stack` is the same thing for a `with` block: the demo and the acceptance tests run what
an operator runs.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from config.rules import check
from config.settings import BadSettings, settings
from db.core.migrate import MigrationRefused, migrate
from db.core.pool import NoDatabase
from dev.stack import fleet, flower, voice, web
from dev.stack import services as embedded
from dev.stack.environment import Model, child_environment, choose_model, without_box
from dev.stack.flower import door
from dev.stack.noted import Services, without_password
from dev.stack.processes import own_port
from dev.stack.procfile import BadProcfile, read_procfile
from dev.stack.readiness import NotReady, await_ready
from dev.stack.server import ServiceError
from dev.stack.services import services
from dev.stack.supervisor import Say, Supervisor

GRACE = 5.0  # seconds a worker may go on after Ctrl-C
FLOWER_PORT = 5555  # the one people know, if it is free
EGRESS = ".baton/egress"
READY = 90.0  # seconds until something that does not answer counts as broken
COLOURS = (36, 33, 32, 35, 34, 31)
EXPECTED = (ServiceError, BadSettings, BadProcfile, NoDatabase, MigrationRefused, NotReady)


@dataclass(frozen=True, slots=True)
class Stack:
    """A running Baton. Its processes are named as in the Procfile, and `model`."""

    services: Services
    model: Model
    flower_url: str = field(repr=False)  # with its password
    env: Mapping[str, str] = field(repr=False)  # what the processes were given
    supervisor: Supervisor
    web_url: str = ""
    unboxed: str | None = None  # why agents have no box, for people

    @property
    def database_url(self) -> str:
        return self.services.database_url

    @property
    def redis_url(self) -> str:
        return self.services.redis_url

    def pid(self, name: str) -> int | None:
        """The pid of the process of that name, or None while it is down."""
        child = self.supervisor.children[name]
        return child.process.pid if child.lives() and child.process else None

    def log(self, name: str) -> str:
        """All that the process of that name has said, also in earlier runs."""
        file = self.supervisor.children[name].log
        return file.read_text() if file.exists() else ""


@contextmanager
def stack(  # all but the first are for tests, and named
    root: Path,
    env_overrides: Mapping[str, str] | None = None,
    *,
    commands: Mapping[str, str] | None = None,
    ready_timeout: float = READY,
    say: Say = lambda _name, _line: None,
    hurry: threading.Event | None = None,
) -> Generator[Stack]:
    """Run Baton with its data under `root`/.baton until the block ends.

    `commands` are run instead of the Procfile's (that of `root`, or else of Baton); `env_overrides` goes before the
    environment. Raises one of EXPECTED with a sentence when something cannot start.
    """
    check(settings())
    overrides = dict(env_overrides or {})
    commands = read_procfile(root) if commands is None else dict(commands)
    database_url, redis_url = overrides.get("DATABASE_URL"), overrides.get("REDIS_URL")
    with services(root, database_url=database_url, redis_url=redis_url) as running:
        migrate(
            running.database_url,
            tell=lambda line: say("up", line),
            with_roles=fleet.is_ours(running),
        )
        model = choose_model(overrides)
        port = own_port(first=FLOWER_PORT)
        way_in = door(root, port, {**os.environ, **overrides})
        page = web.door(root, {**os.environ, **overrides})
        unboxed = without_box(overrides)
        if unboxed:
            say("up", unboxed)
        provider = voice.choose(
            overrides if web.NAME in commands else {"OPENAI_API_KEY": "none"}
        )
        running = replace(
            running,
            unboxed=bool(unboxed),
            model_url=model.url,
            flower_url=way_in.url if flower.NAME in commands else "",
            web_url=page.url if web.NAME in commands else "",
        )
        embedded.note(root, running)  # `baton doctor` asks the same model as the workers
        url = fleet.database_url(embedded.home_of(root), running)
        env = {**child_environment(running, model), "DATABASE_URL": url, "PORT": str(port)}
        env |= overrides
        env |= {"BATON_SANDBOX": "off"} if unboxed else {}
        standins = _standins(model, provider)
        supervisor = Supervisor(
            {**standins, **commands},
            env=env,
            cwd=root,
            say=say,
            last=[*standins, "egress"],
            own={
                flower.NAME: way_in.env,
                web.NAME: {**page.env, **provider.env},
                web.SIGNS: page.secret,
            },
            mend=_mender(root, running, say),
        )
        if hurry:
            supervisor.hurry = hurry
        supervisor.start()
        try:
            await_ready(
                supervisor,
                running.database_url,
                running.redis_url,
                flower=way_in.answers,
                web=page.url,
                model=model,
                egress_home=_egress_home(root, overrides),
                within=ready_timeout,
            )
            yield Stack(
                running, model, running.flower_url, env, supervisor, running.web_url, unboxed
            )
        finally:
            supervisor.stop(GRACE)


def _egress_home(root: Path, overrides: Mapping[str, str]) -> Path:
    """Where the proxy of the processes has its socket: a relative place counts from `root`."""
    chosen = settings().egress_home if "egress_home" in settings().model_fields_set else EGRESS
    return root / (overrides.get("BATON_EGRESS_HOME") or chosen)


def _standins(model: Model, provider: voice.Provider) -> dict[str, str]:
    """The commands of what stands in for somebody else."""
    both = {"model": model.command, voice.NAME: provider.command}
    return {name: command for name, command in both.items() if command}


def main(root: Path | None = None) -> int:
    """Run until Ctrl-C or SIGTERM. Returns the exit code; says on stderr why it is 1."""
    say, hurry = _printer(sys.stdout.isatty()), threading.Event()
    try:
        with _signals(hurry), stack(root or Path.cwd(), say=say, hurry=hurry) as running:
            _print_ready(running)
            try:
                _sleep_for_ever()
            except Stopped as stopped:
                say("up", "stopping; once more stops at once")
                running.supervisor.stop(_grace(stopped.number))
    except Stopped:
        pass  # before it was ready: as clean an end as any
    except EXPECTED as exc:
        print(exc, file=sys.stderr)  # noqa: T201
        return 1
    except OSError as exc:
        print(f"Baton cannot start: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


class Stopped(BaseException):
    """The terminal or the system asked us to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextmanager
def _signals(hurry: threading.Event) -> Generator[None]:
    """The first signal raises Stopped where we are; any other one only takes the grace away."""
    asked = threading.Event()

    def obey(number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            hurry.set()
        else:
            asked.set()
            raise Stopped(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, obey) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sleep_for_ever() -> None:
    while True:
        time.sleep(3600)


def _grace(number: int) -> float:
    """Ctrl-C is somebody waiting; a SIGTERM may be given more by BATON_DRAIN_GRACE."""
    chosen = "drain_grace" in settings().model_fields_set and number == signal.SIGTERM
    return settings().drain_grace.total_seconds() if chosen else GRACE


def _mender(root: Path, running: Services, say: Say) -> Callable[[], None]:
    """Start an embedded server again that has died; called by the supervisor's thread."""
    due, pause, whole = 0.0, 0.0, True

    def mend() -> None:
        nonlocal due, pause, whole
        gone = [one for one in running.embedded if one.wanted and not one.process]
        if (whole and not gone) or time.monotonic() < due:
            return
        for one in gone:
            say("up", f"{one.name} has ended; starting it again")
        wrong = [_refused(one.start) for one in gone]
        wrong.append(_refused(lambda: embedded.note(root, running)))
        whole = not any(wrong)
        for line in filter(None, wrong):
            say("up", line)
        pause = 0.0 if whole else min(2 * pause + 1, 30)
        due = time.monotonic() + pause

    return mend


def _refused(work: Callable[[], None]) -> str | None:
    """Do it, if that is possible now; else why it is not."""
    try:
        work()
    except (ServiceError, OSError) as exc:
        return str(exc)
    return None


def _print_ready(running: Stack) -> None:
    parts = {
        "database": without_password(running.database_url),
        "redis": running.services.redis_told,
        "flower": running.flower_url,
        "model": running.model.told,
    }
    told = "  ".join(f"{name} {url}" for name, url in parts.items() if url)
    if running.web_url:
        told += f"  web={running.web_url}"
    print(f"ready  {told}", flush=True)  # noqa: T201


def _printer(colours: bool) -> Say:
    """Lines with the name of who said them in front."""
    seen = list[str]()

    def say(name: str, line: str) -> None:
        if name not in seen:
            seen.append(name)
        colour = COLOURS[seen.index(name) % len(COLOURS)]
        label = f"\x1b[{colour}m{name:<7}|\x1b[0m" if colours else f"{name:<7}|"
        with suppress(OSError):  # nobody reads any more; the logs have it
            print(label, line, flush=True)  # noqa: T201

    return say


if __name__ == "__main__":
    sys.exit(main())
