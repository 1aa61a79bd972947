"""Which pages may act with a browser's cookie: the gateway's own, and those of BATON_WEB_ORIGINS."""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from config.settings import settings


def allowed(connection: HTTPConnection) -> bool:
    """Whether the page that this comes from may. What is no browser names no page."""
    origin = connection.headers.get("origin")
    if origin is None:
        return True
    return origin.rstrip("/") in named() or _is_own(origin, connection.headers.get("host"))


def _is_own(origin: str, host: str | None) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc == host
    except ValueError:  # it is none
        return False


def named() -> list[str]:
    """Those of BATON_WEB_ORIGINS."""
    return [one.strip().rstrip("/") for one in settings().web_origins.split(",") if one.strip()]
