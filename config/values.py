"""What the value of a setting may be: how it is read from text, and when it is none.

A complaint says what a right value looks like, and never repeats an address or a key.
"""

import base64
import ipaddress
import math
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, TypeAdapter, ValidationError

from config import hosts, redis

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


def _postgres(given: SecretStr) -> SecretStr:
    """As psycopg reads it. Its own complaint may hold the password, so it is not told."""
    value = given.get_secret_value()
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(value)
    except ProgrammingError as exc:
        raise ValueError("must be postgresql://user:password@host:port/name") from exc
    return given


def _broker(given: SecretStr) -> SecretStr:
    """Ours are databases 0, 1 and 2, so the address may not name another one."""
    if value := given.get_secret_value():
        redis.way(value)
        if not _has_a_port(value):
            raise ValueError(redis.HOW)
    return given


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
    if urlsplit(value).username is not None:
        raise ValueError("must be without user and password: the key is ANTHROPIC_API_KEY")
    return value


def _realtime(value: str) -> str:
    if not re.fullmatch(r"(ws|http)s?://[^/\s?#]+[^\s#]*", value) or not _has_a_port(value):
        raise ValueError("must be a wss or ws URL, such as wss://api.openai.com/v1/realtime")
    if urlsplit(value).username is not None:
        raise ValueError("must be without user and password: the key is OPENAI_API_KEY")
    return value


def _flower(given: SecretStr) -> SecretStr:
    """With user and password before the host; its pages are no part of it."""
    value = given.get_secret_value()
    if value and not (re.fullmatch(r"https?://[^/\s?#]+/?", value) and _has_a_port(value)):
        raise ValueError("must be http://user:password@host:port")
    return SecretStr(value.rstrip("/"))


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


def _for_each_project(given: SecretStr) -> SecretStr:
    value = given.get_secret_value()
    if value and not re.fullmatch(
        r"(file:///|(ssh|https?)://[^/\s]+/)[^{}\s]*\{project\}[^{}\s]*", value
    ):
        raise ValueError(
            "must be a file, ssh or https URL with {project} in its path,"
            " such as ssh://git@host/{project}.git"
        )
    return given


def _directory(value: Path) -> Path:
    """A relative one counts from where the process starts."""
    found = value.expanduser().absolute()
    if found == found.parent:
        raise ValueError("must be a directory of its own, not the root of the disk")
    return found


def _places(value: str) -> str:
    """Several, each as it is written."""
    if not all(path.startswith("/") and path.strip("/") for path in value.split(":") if path):
        raise ValueError("must be absolute paths with colons between them, and not / itself")
    return value


def listed(value: str) -> list[str]:
    """What stands between commas."""
    return [one.strip() for one in value.split(",") if one.strip()]


def _hosts(value: str) -> str:
    """Names of hosts, not addresses of pages."""
    for one in listed(value):
        if not re.fullmatch(r"\*|(\*\.)?[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]", one):
            raise ValueError(
                "must be hosts with commas between them, such as hooks.example.com, *.example.com"
            )
    return value


def _prices(value: str) -> str:
    for one in listed(value):
        if not re.fullmatch(r"[a-z0-9.-]+=\d{1,4}(\.\d{1,4})?", one):
            raise ValueError(
                "must be families of models with their price, such as opus=5,haiku=1"
            )
    return value


def _networks(value: str) -> str:
    try:
        for one in listed(value):
            ipaddress.ip_network(one)
    except ValueError:
        raise ValueError(
            "must be networks with commas between them, such as 10.1.0.0/16,fd00::/8"
        ) from None
    return value


def _signing(given: SecretStr) -> SecretStr:
    """As Standard Webhooks writes secrets; the first is the newest."""
    for one in listed(given.get_secret_value()):
        try:
            key = base64.b64decode(one.removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if not 24 <= len(key) <= 64:
            raise ValueError(
                "must be whsec_ and 24 to 64 random bytes in base64; several with commas between"
            )
    return given


def _egress_hosts(value: str) -> str:
    """Each is read as the proxy reads it."""
    try:
        list(hosts.read_all(value))
    except hosts.BadHost as exc:
        raise ValueError(hosts.HOW) from exc
    return value


Duration = Annotated[timedelta, BeforeValidator(_seconds)]
Directory = Annotated[Path, AfterValidator(_directory)]
# Addresses that may hold a password: nobody shows one by mistake.
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres)]
BrokerUrl = Annotated[SecretStr, AfterValidator(_broker)]
Certificates = Annotated[str, AfterValidator(_certificates)]
FlowerUrl = Annotated[SecretStr, AfterValidator(_flower)]
ApiUrl = Annotated[str, AfterValidator(_api)]
RealtimeUrl = Annotated[str, AfterValidator(_realtime)]
ApiKey = Annotated[SecretStr, AfterValidator(_key)]
GitUrl = Annotated[SecretStr, AfterValidator(_for_each_project)]
Places = Annotated[str, AfterValidator(_places)]
Hosts = Annotated[str, AfterValidator(_hosts)]
Networks = Annotated[str, AfterValidator(_networks)]
SigningSecrets = Annotated[SecretStr, AfterValidator(_signing)]
Prices = Annotated[str, AfterValidator(_prices)]
EgressHosts = Annotated[str, AfterValidator(_egress_hosts)]
