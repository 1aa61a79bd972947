"""The stand-in model as a server on loopback, in this process: `with standin(...) as model`.

    with standin(scenario="plain", speed=0) as model:
        model.fault("529", times=2)
        ...                                    # an agent with ANTHROPIC_BASE_URL=model.url
        assert model.requests[-1].prompts == ("first", "second")

`with` runs it in a thread of its own, `async with` in the running event loop.
"""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from dev.standin import cache
from dev.standin import scenario as scenarios
from dev.standin.api import LARGEST, Api
from dev.standin.control import Control
from dev.standin.faults import fault
from dev.standin.loop_thread import LoopThread
from dev.standin.model import DEADLINE, LIMIT, Model, Seen

HOST = "127.0.0.1"
GRACE = 0.5  # seconds that requests in progress get when the server stops


class Standin:
    """A server with its model. It can be stopped and started again on the same port."""

    def __init__(self, model: Model, *, port: int, speed: float) -> None:
        self.model = model
        self.port = port
        self._api = Api(model, speed=speed)
        self._runner: web.AppRunner | None = None
        self._thread: LoopThread | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def requests(self) -> tuple[Seen, ...]:
        """Every request for a message so far, as the model saw it; the oldest first."""
        return self.model.requests

    @property
    def unknown(self) -> tuple[str, ...]:
        """Method and path of requests that the stand-in has no answer for."""
        return tuple(self.model.unknown)

    def fault(self, kind: str | int, **more: Any) -> None:
        """Have something go wrong: see faults.Fault for what can be said."""
        self.model.faults.add(fault({"kind": kind, **more}))

    def clear_faults(self) -> None:
        self.model.faults.clear()

    def use(self, name: str | Path) -> None:
        """Answer by another scenario from now on."""
        self.model.scenario = scenarios.load(name)

    def wait_for(self, wanted: Callable[[Seen], bool], *, timeout: float = DEADLINE) -> Seen:
        """The first request that is wanted, waiting up to `timeout` seconds for it."""
        return self.model.wait_for(wanted, timeout=timeout)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=LARGEST)
        app.add_routes([*Control(self.model).routes(), *self._api.routes()])
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=GRACE, handler_cancellation=True
        )
        await self._runner.setup()
        listening = socket.create_server((HOST, self.port))
        self.port = listening.getsockname()[1]
        await web.SockSite(self._runner, listening).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def start(self) -> None:
        """Serve from a thread. Returns once the port listens."""
        self._thread = LoopThread("standin")
        try:
            self._thread.do(self.__aenter__())
        except OSError:
            self.stop()
            raise

    def stop(self) -> None:
        """End the thread's server; connections are refused from here on."""
        if self._thread:
            self._thread.do(self.__aexit__(None, None, None))
            self._thread.end()
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def standin(
    scenario: str | Path | scenarios.Scenario = "plain",
    *,
    port: int = 0,
    speed: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    minimum: int = cache.MINIMUM,
    limit: int = LIMIT,
) -> Standin:
    """A stand-in model, to be entered with `with` or `async with`.

    `speed` divides the scenario's pauses (0: none), `clock` ages the prompt cache, `minimum`
    is its shortest prefix and `limit` the context window, both in tokens.
    """
    told = scenario if isinstance(scenario, scenarios.Scenario) else scenarios.load(scenario)
    return Standin(
        Model(told, clock=clock, minimum=minimum, limit=limit), port=port, speed=speed
    )
