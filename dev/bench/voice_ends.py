"""What `baton bench voice` measures with: a provider that answers at once, and a relay that only pumps.

    python -m dev.bench.voice_ends provider            prints its address, then the time of each
    python -m dev.bench.voice_ends pumps URL           `closed` and `confirmed`

The provider gives each piece of audio back as one of its own. It looks at no audio: what is measured is
what lies between. A `session.update` with the instructions `close` closes the link after its answer.
"""

import asyncio
import json
import sys
import time
from contextlib import suppress

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

ASKED, GIVEN = '{"type":"input_audio_buffer.append"', '{"type":"response.output_audio.delta"'
CREATED = {
    "type": "session.created",
    "event_id": "e",
    "session": {"type": "realtime", "id": "s"},
}


def main() -> None:
    """Serve until it is killed."""
    what, *words = sys.argv[1:]
    asyncio.run(provider() if what == "provider" else pumps(*words))


async def provider() -> None:
    """See above."""
    await _serve(_answer)


async def _answer(ws: ServerConnection) -> None:
    await ws.send(json.dumps(CREATED))
    with suppress(ConnectionClosed):
        async for text in ws:
            assert isinstance(text, str)
            if text.startswith(ASKED):
                await ws.send(GIVEN + text[len(ASKED) :])
                continue
            event = json.loads(text)
            if event["type"] == "session.update":
                _tell("confirmed", time.time())
                await ws.send(json.dumps(event | {"type": "session.updated"}))
                if event["session"].get("instructions") == "close" and not event[
                    "event_id"
                ].startswith("baton_"):
                    _tell("closed", time.time())
                    await ws.close(1001)


async def pumps(url: str) -> None:
    """The least that a relay can be: two pumps, nothing read, nothing kept."""

    async def relay(client: ServerConnection) -> None:
        async with connect(url, proxy=None, compression=None) as far:
            up, down = (
                asyncio.create_task(_pump(client, far)),
                asyncio.create_task(_pump(far, client)),
            )
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            for task in (up, down):
                task.cancel()

    await _serve(relay)


async def _pump(source: object, sink: object) -> None:
    with suppress(ConnectionClosed):
        async for text in source:  # pyright: ignore
            await sink.send(text)  # pyright: ignore


async def _serve(handle: object) -> None:
    async with serve(handle, "127.0.0.1", 0, compression=None) as server:  # pyright: ignore
        _tell(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().create_future()


def _tell(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
