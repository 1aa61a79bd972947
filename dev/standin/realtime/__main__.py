"""`python -m dev.standin.realtime --port 0`: serve until interrupted."""

import argparse
import asyncio
import signal
import sys

from dev.standin.realtime.server import provider


async def serve(port: int, pace: float) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with provider(port=port, pace=pace) as one:
        sys.stdout.write(one.url + "\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> int:
    """1 if the port cannot be used, with a sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m dev.standin.realtime", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--pace", type=float, default=0.1, help="seconds between two pieces")
    told = parser.parse_args()
    try:
        asyncio.run(serve(told.port, told.pace))
    except OSError as refused:
        sys.stderr.write(
            f"Cannot serve on port {told.port}: {refused.strerror}; give another.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
