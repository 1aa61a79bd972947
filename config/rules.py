"""What settings must be to each other, so that one does not break what another promises.

Most values follow: who sets BATON_LEASE need not think of BATON_RENEW_EVERY. What was set all the
same, and cannot be, is refused in a sentence that names both. What can be, and has a price that
somebody may have meant to pay (a trial with short times), is told and not refused. A rule says
why it is there.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from config.settings import BadSettings, Settings, name, number

LEAST_SILENCE = timedelta(seconds=31)
CHARS = 4  # of a text, about, in one token


@dataclass(frozen=True, slots=True)
class Rule:
    """`holds` of the settings; otherwise `why` is told, each name in it with its value, and the
    start is refused, unless the rule is only `advice`."""

    holds: Callable[[Settings], bool]
    why: str
    advice: bool = False

    @property
    def fields(self) -> list[str]:
        """The settings that it is about."""
        return [field for _, field, _, _ in Formatter().parse(self.why) if field]

    def broken_by(self, settings: Settings) -> str | None:
        """The sentence, unless it holds."""
        if self.holds(settings):
            return None
        return self.why.format(**{f: _told(f, getattr(settings, f)) for f in self.fields})


def _told(field: str, value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
        if not value.startswith("file:"):  # what else there is may hold a password
            return name(field)
    plain = value if isinstance(value, str | Path) else number(value)
    return f"{name(field)} ({plain})"


def _is_tls(url: SecretStr) -> bool:
    return url.get_secret_value().startswith("rediss:")


def _apart(first: Path, second: Path) -> bool:
    one, other = first.resolve(), second.resolve()
    return not (one.is_relative_to(other) or other.is_relative_to(one))


def _elsewhere(remote: str, *places: Path) -> bool:
    """Whether no project's repository on this host is, holds or lies in one of the places."""
    url = urlsplit(remote)
    if url.scheme != "file":
        return True
    before, after = (re.escape(part) for part in unquote(url.path).split("{project}"))
    within = re.compile(f"{before}[^/]+{after}(/.*)?")
    top = Path(unquote(url.path).partition("{project}")[0] + "x").parent
    return not any(within.fullmatch(str(p)) or top.is_relative_to(p) for p in places)


def _shows_none(named: str, *ours: Path) -> bool:
    """Whether no place that agents may read is, or holds, one that they may not."""
    places = [Path(each).resolve() for each in named.split(":") if each]
    private = (*ours, Path(".baton"), Path(".env"), Path.home()) if places else ()
    return not any(one.resolve().is_relative_to(place) for one in private for place in places)


RULES = (
    # A renewal is due, is looked for at the next look, and may fail once; the agent is ended
    # a sixth of the lease before its end.
    Rule(
        lambda s: s.renew_every + s.cancel_poll <= s.lease / 2,
        "{renew_every} and {cancel_poll} together must be at most half of {lease}: otherwise"
        " one late answer of Postgres ends a job that runs.",
    ),
    Rule(
        lambda s: not s.redis_ca or not s.redis_url or _is_tls(s.redis_url),
        "{redis_ca} is for a REDIS_URL that begins with rediss://: correct one of them.",
    ),
    Rule(
        lambda s: s.idle_timeout <= s.turn_timeout,
        "{idle_timeout} should be at most {turn_timeout}: it is never reached.",
        advice=True,
    ),
    # While a command runs, the CLI says so each 30 s.
    Rule(
        lambda s: s.idle_timeout >= min(LEAST_SILENCE, s.turn_timeout),
        "{idle_timeout} should be at least 31, or {turn_timeout} if that is less: while a command"
        " runs, the agent is silent for 30 s, and is ended for it.",
        advice=True,
    ),
    Rule(
        lambda s: s.backoff_first <= s.backoff_max,
        "{backoff_first} must be at most {backoff_max}, the longest wait.",
    ),
    Rule(
        lambda s: s.publish_after <= s.publish_again_max,
        "{publish_after} should be at most {publish_again_max}, the longest pause.",
        advice=True,
    ),
    # A checkpoint lives on with each renewal of its job's lease.
    Rule(
        lambda s: s.checkpoint_ttl >= 2 * s.renew_every,
        "{checkpoint_ttl} should be at least twice {renew_every}: a checkpoint may be gone while"
        " its job runs.",
        advice=True,
    ),
    # A message that comes again must find its job, or the request is taken for a new one.
    Rule(
        lambda s: s.jobs_kept >= s.delivered_again,
        "{jobs_kept} should be at least 8 times {turn_timeout} and an hour: until then a plain"
        " Celery message may come again, and would be done twice.",
        advice=True,
    ),
    # What a dead attempt left is gone on from when its job is tried again.
    Rule(
        lambda s: s.transcripts_kept >= s.turn_timeout + s.backoff_max,
        "{transcripts_kept} should be at least {turn_timeout} and {backoff_max} together: what a"
        " failed try left may be deleted before the next one.",
        advice=True,
    ),
    Rule(
        lambda s: s.digest_chars <= s.context_window * CHARS / 2,
        "{digest_chars} must be at most twice {context_window}: the past may fill half of the"
        " window, and a token is about 4 characters.",
    ),
    Rule(
        lambda s: _apart(s.workspaces, s.agent_home),
        "{workspaces} and {agent_home} must lie apart: a project could be given the other's"
        " place.",
    ),
    Rule(
        lambda s: _shows_none(s.box_read, s.workspaces, s.agent_home),
        "{box_read} must not hold {workspaces}, {agent_home}, the worker's home, `.baton` or"
        " `.env`: every agent could read them. Name what lies beside them.",
    ),
    Rule(
        lambda s: _elsewhere(s.workspace_remote.get_secret_value(), s.workspaces, s.agent_home),
        "{workspace_remote} must lie apart from {workspaces} and {agent_home}: a project's"
        " repository would come to lie among their files.",
    ),
)


def check(settings: Settings) -> None:
    """Raises BadSettings with the sentence of the first rule that does not hold."""
    for rule in RULES:
        if not rule.advice and (wrong := rule.broken_by(settings)):
            raise BadSettings(wrong)


def advice(settings: Settings) -> Iterator[str]:
    """A sentence for each rule that does not hold and refuses nothing."""
    for rule in RULES:
        if rule.advice and (told := rule.broken_by(settings)):
            yield told
