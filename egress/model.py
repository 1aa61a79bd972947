"""The model's API, as agents reach it: what they may ask of it, with the key in the token's place."""

import re
from collections.abc import Iterable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from os import environ

import h11
import httpx

from config.settings import ANTHROPIC, Settings
from egress.answers import SPENT, Refused
from egress.meter import Meter
from egress.turns import Turn, Turns
from egress.wire import Gone, Headers, Wire

# What the CLI asks for. Whatever else the key could do (batches, files, keys) is not the agent's.
ASKED = re.compile(
    rb"(POST /v1/messages(/count_tokens)?|(GET|HEAD) (/|/v1/models(/[\w.@-]+)?))(\?[\w=&.%-]*)?"
)
OF_ONE_HOP = {
    *(b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    *(b"proxy-connection", b"proxy-authenticate", b"proxy-authorization"),
}
OURS = {
    b"host",
    b"x-api-key",
    b"authorization",
    b"accept-encoding",
    b"content-length",
    b"cookie",
    b"expect",
}
CONNECT = 20.0  # seconds
# Betas that the CLI asks for because the bridge gives the token as a bearer (worker/sandbox/bridge.py):
# the model's API may refuse them to a key, and no body depends on them.
OF_BEARERS = b"tool-provenance-"


def client() -> httpx.AsyncClient:
    """A client for the model's API: certificates and proxies are as the environment says."""
    trusted = httpx.create_ssl_context()
    if more := environ.get("NODE_EXTRA_CA_CERTS"):  # for whom the agent's CLI was told to trust
        trusted.load_verify_locations(more)
    return httpx.AsyncClient(
        verify=trusted,
        follow_redirects=False,
        timeout=httpx.Timeout(None, connect=CONNECT),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
        cookies=no_cookies(),
    )


def no_cookies() -> CookieJar:
    """A jar that takes none: what is told to one turn is not another's."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def as_for_a_key(headers: Headers) -> Headers:
    """The headers of a request that is to go on with a key."""
    found = Headers()
    for name, value in headers:
        if name == b"anthropic-beta":
            betas = [one.strip() for one in value.split(b",")]
            value = b",".join(one for one in betas if not one.startswith(OF_BEARERS))
        if value:
            found.append((name, value))
    return found


def kept(headers: Iterable[tuple[bytes, bytes]], *, but: set[bytes] = OF_ONE_HOP) -> Headers:
    """The headers that are not of one connection only."""
    found = [(name, value) for name, value in headers if name.lower() not in OF_ONE_HOP]
    return [(name, value) for name, value in found if name.lower() not in but]


class Upstream:
    """The model's API with its key."""

    def __init__(self, given: Settings, http: httpx.AsyncClient, turns: Turns) -> None:
        self._base = httpx.URL(given.anthropic_base_url or ANTHROPIC)
        self._keys = [(k.encode(), v.encode()) for k, v in given.model_keys().items()]
        self._http, self._turns = http, turns

    async def serve(self, wire: Wire, asked: h11.Request, turn: Turn) -> None:
        """Answer one request of a turn's. Raises Refused, httpx.HTTPError."""
        if not ASKED.fullmatch(asked.method + b" " + asked.target):
            raise Refused(
                404,
                "The proxy lets nothing through to the model but messages.",
                "not_found_error",
            )
        if not self._keys:
            raise Refused(
                401, "The egress proxy has no key for the model.", "authentication_error"
            )
        async with turn.slots:
            if why := await self._turns.used_up(turn):
                raise Refused(SPENT, why)
            body, meter = await wire.body(), Meter()
            try:
                await wire.while_there(self._pass(wire, asked, body, meter))
            except Gone:
                meter.broken_off(len(body))
                raise
            finally:
                await self._turns.charge(turn, meter.usd())

    async def _pass(self, wire: Wire, asked: h11.Request, body: bytes, meter: Meter) -> None:
        headers = kept(asked.headers, but=OURS)
        if b"authorization" not in dict(self._keys):
            headers = as_for_a_key(headers)
        request = httpx.Request(
            asked.method.decode(),
            self._base.copy_with(raw_path=self._base.raw_path.rstrip(b"/") + asked.target),
            headers=[
                *headers,
                *self._keys,
                (b"accept-encoding", b"identity"),  # usage is read as it passes
            ],
            content=body,
        )
        answer = await self._http.send(request, stream=True)
        meter.stream = "event-stream" in answer.headers.get("content-type", "")
        await pass_on(wire, answer, meter)


async def pass_on(wire: Wire, answer: httpx.Response, meter: Meter | None = None) -> None:
    """Send the answer on, each part as it comes."""
    try:
        headers = kept(answer.headers.raw)
        await wire.send(h11.Response(status_code=answer.status_code, headers=headers))
        async for data in answer.aiter_raw():
            if meter:
                meter.read(data)
            await wire.send(h11.Data(data=data))
        await wire.send(h11.EndOfMessage())
    finally:
        await answer.aclose()
