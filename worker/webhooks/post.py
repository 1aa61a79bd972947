"""One POST to a stranger's server, within limits of time and size; redirects are not followed."""

import asyncio
import ssl
from dataclasses import dataclass

import httpx

from config import release
from worker.webhooks import addresses, signing

LONGEST = 15.0  # seconds for all of it: name, connection, answer
AGENT = f"baton/{release.version()}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it: taken, or why not. `final`: it is not to be tried again."""

    status: int | None = None
    error: str | None = None
    final: bool = False


def client() -> httpx.AsyncClient:
    """Goes straight to where it is told, by no proxy of the environment's; no connection is kept,
    since an address may be several hosts'."""
    return httpx.AsyncClient(
        verify=ssl.create_default_context(),
        trust_env=False,
        follow_redirects=False,
        timeout=LONGEST,
        limits=httpx.Limits(max_keepalive_connections=0),
    )


async def post(http: httpx.AsyncClient, url: str, host: str, message: str, body: str) -> Answer:
    """Send it, and say what came of it; never raises for what the other side does."""
    try:
        async with asyncio.timeout(LONGEST):
            status = await _post(http, httpx.URL(url), host, message, body)
    except addresses.Forbidden as exc:
        return Answer(error=str(exc))
    except TimeoutError:
        return Answer(error=f"{host} did not answer within {LONGEST:.0f} s.")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError) as exc:
        told = str(exc).strip().rstrip(".") or type(exc).__name__
        return Answer(error=f"{host} could not be reached ({told[:200]}).")
    return judge(status, host)


async def _post(
    http: httpx.AsyncClient, url: httpx.URL, host: str, message: str, body: str
) -> int:
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    places = await addresses.resolved(host, port)
    for place in places:
        request = http.build_request(
            "POST",
            url.copy_with(host=place),
            content=body.encode(),
            headers={
                "Host": url.netloc.decode(),
                "Content-Type": "application/json",
                "User-Agent": AGENT,
                **signing.headers(message, body),
            },
            extensions={"sni_hostname": host.strip("[]")},
        )
        try:
            answer = await http.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if place == places[-1]:
                raise
            continue
        await answer.aclose()  # what it says beside its status is not read
        return answer.status_code
    raise OSError("it has no address")


def judge(status: int, host: str) -> Answer:
    """What an answer of that status means."""
    if 200 <= status < 300:
        return Answer(status)
    if 300 <= status < 400:
        return Answer(
            status,
            f"{host} redirects ({status}), which is not followed: give the address that it leads to.",
        )
    if status == 410:
        return Answer(status, f"{host} wants no more of it (410).", final=True)
    return Answer(status, f"{host} answered {status}.")
