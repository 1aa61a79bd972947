"""The process `egress`: one proxy a host, `python -m egress`."""

import asyncio
import resource
import signal
import sys

import uvloop

from config import logging
from config.settings import settings
from config.start import UNSET, begin_or_exit
from egress.server import running


def main() -> None:
    """Serve until SIGTERM."""
    begin_or_exit()
    if not settings().database_url:
        sys.exit(UNSET.format("DATABASE_URL"))
    logging.configure()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        uvloop.run(_serve())
    except OSError as exc:
        sys.exit(
            f"The egress proxy cannot listen in {settings().egress_home}: {exc.strerror}; correct BATON_EGRESS_HOME."
        )


async def _serve() -> None:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    async with running():
        await asked.wait()


if __name__ == "__main__":
    main()
