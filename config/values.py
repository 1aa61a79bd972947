"""What the value of a setting may be: how it is read from text, and when it is none.

A complaint says what a right value looks like, and never repeats an address or a key.
"""

import math
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, TypeAdapter, ValidationError

from config import redis

WRITTEN = TypeAdapter(timedelta)


def _seconds(value: Any) -> timedelta:
    """`90` and `1.5` are seconds; ISO 8601 (`PT1H`) is read as it is written."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        try:
            return WRITTEN.validate_python(value)
        except ValidationError as exc:
            raise ValueError("must be a number of seconds, or ISO 8601 such as PT1H") from exc
    if not math.isfinite(seconds) or abs(seconds) > timedelta.max.total_seconds() / 2:
        raise ValueError("must be a number of seconds that ends")
    return timedelta(seconds=seconds)


def _postgres(value: str) -> str:
    """As psycopg reads it. Its own complaint may hold the password, so it is not told."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(value)
    except ProgrammingError as exc:
        raise ValueError("must be postgresql://user:password@host:port/name") from exc
    return value


def _broker(value: str) -> str:
    """Ours are databases 0, 1 and 2, so the address may not name another one."""
    if value:
        redis.way(value)
        if not _has_a_port(value):
            raise ValueError(redis.HOW)
    return value


def _certificates(value: str) -> str:
    """A file of those that sign a server's."""
    if value:
        redis.way("rediss://any", value)
    return value


def _api(value: str) -> str:
    if value and not (
        re.fullmatch(r"https?://[^/\s?#]+[^\s?#]*", value) and _has_a_port(value)
    ):
        raise ValueError("must be an http or https URL, such as https://api.anthropic.com")
    return value


def _flower(value: str) -> str:
    """With user and password before the host; its pages are no part of it."""
    if value and not (re.fullmatch(r"https?://[^/\s?#]+/?", value) and _has_a_port(value)):
        raise ValueError("must be http://user:password@host:port")
    return value.rstrip("/")


def _has_a_port(url: str) -> bool:
    """Whether what stands for the port is one."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _key(value: SecretStr) -> SecretStr:
    """It travels in a header, which can hold neither spaces nor line ends."""
    if not re.fullmatch(r"[!-~]*", value.get_secret_value().strip()):
        raise ValueError("must be printable ASCII without spaces: look at how it was copied")
    return SecretStr(value.get_secret_value().strip())


def _for_each_project(value: str) -> str:
    if value and not re.fullmatch(
        r"(file:///|(ssh|https?)://[^/\s]+/)[^{}\s]*\{project\}[^{}\s]*", value
    ):
        raise ValueError(
            "must be a file, ssh or https URL with {project} in its path,"
            " such as ssh://git@host/{project}.git"
        )
    return value


def _directory(value: Path) -> Path:
    """A relative one counts from where the process starts."""
    found = value.expanduser().absolute()
    if found == found.parent:
        raise ValueError("must be a directory of its own, not the root of the disk")
    return found


Duration = Annotated[timedelta, BeforeValidator(_seconds)]
Directory = Annotated[Path, AfterValidator(_directory)]
PostgresUrl = Annotated[str, AfterValidator(_postgres)]
BrokerUrl = Annotated[str, AfterValidator(_broker)]
Certificates = Annotated[str, AfterValidator(_certificates)]
FlowerUrl = Annotated[str, AfterValidator(_flower)]
ApiUrl = Annotated[str, AfterValidator(_api)]
ApiKey = Annotated[SecretStr, AfterValidator(_key)]
GitUrl = Annotated[str, AfterValidator(_for_each_project)]
