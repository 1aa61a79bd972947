"""Logs: one event name and its fields a line, on stderr; secrets never among them."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from config.settings import settings

SECRETS = re.compile(r"(sk-[A-Za-z0-9_-]{8,}|(?<=Bearer )\S+|(?<=://)[^/\s:@]*:[^@\s/]+(?=@))")


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take keys, bearer tokens and passwords of addresses out of every field."""
    return {
        k: SECRETS.sub("[secret]", v) if isinstance(v, str) else v for k, v in event.items()
    }


def configure() -> None:
    """Set structlog and the standard library's logging up, once a process."""
    last: Any = (
        structlog.processors.JSONRenderer()
        if settings().log_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings().log_level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
