"""The process `web`: one gateway, `python -m gateway`."""

import sys

import uvicorn

from config import logging
from config.settings import BadSettings, settings
from config.start import begin_or_exit

FRAME = 16 * 1024 * 1024  # bytes of one WebSocket message; voice brings sound and pictures
GRACE = 5  # seconds that requests under way have when it ends


def main() -> None:
    """Serve until SIGTERM; open sockets are closed with 1012, and clients go on elsewhere."""
    begin_or_exit()
    logging.configure()
    from gateway.access.head import Head
    from gateway.access.wire import Wire
    from gateway.app import build  # after the settings are known to be usable

    try:
        app = build()
    except BadSettings as exc:
        sys.exit(str(exc))
    uvicorn.run(
        app,
        host=settings().web_host,
        port=settings().web_port,
        loop="uvloop",
        http=Head,
        ws=Wire,
        ws_max_size=FRAME,
        ws_per_message_deflate=False,  # a small frame may become a thousand times as long
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        proxy_headers=True,
    )


if __name__ == "__main__":
    main()
