"""Doctor's probe of the model: it costs a token or two, and clears a credential that was parked when
it succeeds."""

from datetime import timedelta
from typing import Any, cast
from urllib.parse import urlsplit

from psycopg import Connection

from config.settings import ANTHROPIC, settings
from db.jobs import limits, workers
from worker.cli.doctor.check import Check, Verdict
from worker.text.units import shortened

PROBE = 20.0  # seconds for the model to answer
CHEAP_MODEL = "claude-haiku-4-5"  # asked for a word when BATON_MODEL names none


def answers(conn: Connection) -> Check:
    """Ask the model's endpoint for a word; lift the credential's limit if it gives it."""
    from worker.process import identity

    if not settings().model_keys():
        return Check(
            "model", "warn", "neither ANTHROPIC_API_KEY nor ANTHROPIC_BASE_URL is set here:"
            " `baton up` runs a stand-in; give doctor what the workers have."
        )  # fmt: skip
    state, text = _probe(settings().anthropic_base_url or ANTHROPIC)
    if state != "ok":
        return Check("model", state, text)
    limit = limits.standing(conn, identity.credential())
    if limit:
        released = limits.clear(conn, identity.credential())
        text += f"; it was parked ({limit.reason}) and is cleared: {released} jobs go on"
    others = {w.credential for w in workers.online(conn, silent_after=timedelta(days=1))}
    if others and identity.credential() not in others:
        return Check("model", "warn", f"{text}; but the workers use another key or address")
    return Check("model", "ok", text)


def _probe(base: str) -> Verdict:
    import httpx

    local = urlsplit(base).hostname in ("127.0.0.1", "localhost", "::1")
    try:
        answer = httpx.post(
            f"{base.rstrip('/')}/v1/messages",
            headers={**settings().model_keys(), "anthropic-version": "2023-06-01"},
            json={
                "model": settings().model or CHEAP_MODEL,
                "max_tokens": 2,  # the stand-in takes 1 for a check by the CLI, and spares it faults
                "messages": [{"role": "user", "content": "Say yes."}],
            },
            timeout=PROBE,
            trust_env=not local,  # no proxy stands between us and loopback
        )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
        return (
            "fail",
            f"{base} does not answer ({type(exc).__name__}): look at ANTHROPIC_BASE_URL.",
        )
    return _judge(base, answer.status_code, answer.headers.get("retry-after"), _told(answer))


def _told(answer: Any) -> dict[str, Any]:
    """The answer's document; empty when it is none."""
    try:
        document = answer.json()
    except ValueError:
        return {}
    return cast(dict[str, Any], document) if isinstance(document, dict) else {}


def _judge(base: str, status: int, retry_after: str | None, told: dict[str, Any]) -> Verdict:
    match status:
        case 200 if told.get("type") == "message":
            return "ok", f"{base} accepts the key"
        case 200:
            return "fail", f"{base} is not the Messages API: correct ANTHROPIC_BASE_URL."
        case 401 | 403:
            return "fail", f"{base} refuses the key ({status}): put in a valid one."
        case 404:
            return "fail", f"{base} does not know the model (404): correct BATON_MODEL."
        case 429:
            return "warn", f"{base} limits the key (429)" + (
                f" for {retry_after} s" if retry_after else ""
            )
        case _ if status >= 500:
            return "warn", f"{base} has trouble ({status}): jobs wait and try again"
        case _:
            error = cast(dict[str, Any], told.get("error") or {})
            why = shortened(str(error.get("message") or "no reason given"), 200)
            return "fail", f"{base} refuses a short request ({status}): {why}"
