"""The control API, for those in other processes: faults, the request log, the scenario.

GET    /_standin/requests?since=N   the log from number N on, bodies with &bodies=1
POST   /_standin/faults             {"kind": "529", "times": 2, …}, as faults.Fault
GET    /_standin/faults             those still to come
DELETE /_standin/faults
POST   /_standin/scenario           {"name": "demo"} or {"yaml": "rules: …"}
"""

from dataclasses import asdict
from typing import cast

from aiohttp import web

from dev.standin import scenario
from dev.standin.faults import BadFault, fault
from dev.standin.messages import JSON
from dev.standin.model import Model


class Control:
    """The handlers for one model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/_standin/requests", self.requests),
            web.post("/_standin/faults", self.add_fault),
            web.get("/_standin/faults", self.faults),
            web.delete("/_standin/faults", self.clear_faults),
            web.post("/_standin/scenario", self.switch),
        ]

    async def requests(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not since.isdigit():
            return _refused("since is the number of requests to leave out, such as 12.")
        log = [asdict(seen) for seen in self.model.requests[int(since) :]]
        bodies = "bodies" in request.query
        return web.json_response(log if bodies else [e | {"body": None} for e in log])

    async def add_fault(self, request: web.Request) -> web.Response:
        try:
            self.model.faults.add(fault(await _body(request)))
        except BadFault as bad:
            return _refused(str(bad))
        return await self.faults(request)

    async def faults(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(f) for f in self.model.faults.left()])

    async def clear_faults(self, request: web.Request) -> web.Response:
        self.model.faults.clear()
        return await self.faults(request)

    async def switch(self, request: web.Request) -> web.Response:
        told = await _body(request)
        try:
            if "yaml" in told:
                self.model.scenario = scenario.parse(str(told["yaml"]), name="sent")
            else:
                self.model.scenario = scenario.load(str(told.get("name", "")))
        except scenario.BadScenario as bad:
            return _refused(str(bad))
        return web.json_response({"scenario": self.model.scenario.name})


async def _body(request: web.Request) -> JSON:
    try:
        told = await request.json()
    except ValueError:
        return {}
    return cast(JSON, told) if isinstance(told, dict) else {}


def _refused(problem: str) -> web.Response:
    return web.json_response({"error": problem}, status=400)
