"""For Autobahn, `python -m tests.contracts.echoing`: a gateway that counts no hellos, or where ECHO is
set a bare echo served as a gateway is."""

import os
from typing import Any

import uvicorn

from gateway.__main__ import main
from gateway.access import limits


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    if scope["type"] != "websocket":  # whoever waits for it to serve
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        given = {k: message[k] for k in ("text", "bytes") if message.get(k) is not None}
        await send({"type": "websocket.send", **given})


def serve(_app: Any, **how: Any) -> None:
    """As uvicorn does what it is told, but with the echo."""
    uvicorn.Server(uvicorn.Config(echo, **how, lifespan="off")).run()


if __name__ == "__main__":
    limits.HELLOS = (10**6, 60)  # all cases come from one address
    if "ECHO" in os.environ:
        uvicorn.run = serve
    main()
