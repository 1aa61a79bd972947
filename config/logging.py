"""Logs: one event name and its fields a line, on stderr; secrets never among them."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from config.redaction import cleaned
from config.settings import settings

LONGEST = 20_000  # characters of one field
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
Event = MutableMapping[str, Any]


def redact(_: Any, __: str, event: Event) -> Event:
    """Take what is, or may be, a secret out of every field."""
    return cleaned({name: _short(value) for name, value in event.items()})


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]}… ({len(value)} characters)"
    return value


def keep_to_its_line(_: Any, __: str, event: Event) -> Event:
    """No text of users or agents makes a line that looks like one of ours, or moves a terminal's
    cursor: what goes on in another line is set in."""
    return {name: _set_in(v) if isinstance(v, str) else v for name, v in event.items()}


def _set_in(text: str) -> str:
    shown = CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shown.replace("\n", "\n    ")


def configure() -> None:
    """Set structlog and the standard library's logging up, once a process: what Celery, beat,
    Flower or a library logs is a line like our own, with the same form of time."""
    last: list[Any] = (
        [structlog.processors.JSONRenderer()]
        if settings().log_json
        else [keep_to_its_line, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    each: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    level = logging.getLevelNamesMapping()[settings().log_level.upper()]
    structlog.configure(
        processors=[*each, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _take_in_others(each, last, level)


def _take_in_others(each: list[Any], last: list[Any], level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *each],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
