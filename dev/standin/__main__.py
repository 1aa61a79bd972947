"""`python -m dev.standin --port 0 --scenario demo`: serve until interrupted."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from config.release import DISTRIBUTION

try:
    from dev.standin.scenario import BadScenario
    from dev.standin.server import Standin, standin
except ModuleNotFoundError as exc:
    sys.exit(
        f"The stand-in needs the package {exc.name}: `pip install '{DISTRIBUTION}[local]'`."
    )


def main() -> int:
    """Serve; 2 if the scenario or the port cannot be used, with a sentence on stderr."""
    told = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        model = standin(told.scenario, port=told.port, speed=told.speed, limit=told.limit)
        asyncio.run(serve(model, told.ready_file))
    except BadScenario as bad:
        sys.stderr.write(f"{bad}\n")
        return 2
    except OSError as refused:
        sys.stderr.write(
            f"Cannot serve on port {told.port}: {refused.strerror}; give another.\n"
        )
        return 2
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.standin", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--scenario", default="demo", help="demo, plain or a .yaml file")
    parser.add_argument("--speed", type=float, default=1.0, help="divides pauses; 0: no pauses")
    parser.add_argument("--limit", type=int, default=200_000, help="context window in tokens")
    parser.add_argument("--ready-file", type=Path, help="gets the URL once the port listens")
    return parser.parse_args()


async def serve(model: Standin, ready_file: Path | None) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with model:
        if ready_file:
            part = ready_file.with_name(ready_file.name + ".part")
            part.write_text(model.url + "\n")
            part.replace(ready_file)
        sys.stdout.write(model.url + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
