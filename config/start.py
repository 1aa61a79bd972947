"""What every process and command does first: refuse settings that cannot be, and tell of names
that are nobody's. It is before anything is opened, so that nothing has to be undone."""

import os
import sys
from collections.abc import Iterator
from difflib import get_close_matches

from pydantic_settings import DotEnvSettingsSource

from config.rules import advice, check
from config.settings import PREFIX, BadSettings, Settings, name, settings

# What our own processes tell each other; nobody sets these.
BETWEEN_US = frozenset(
    f"{PREFIX}{n}" for n in ("ATTEMPT", "BOX", "CLI", "KEEPER", "UNTIL", "UP")
)
UNSET = "{} is not set: start `baton up`, or name the server."


def begin(*, needs_servers: bool = False) -> None:
    """Check the settings; each name that is unknown, and each piece of advice, is a line on stderr.

    Raises BadSettings with a sentence: a value is wrong, or two of them break each other,
    or, where both servers are needed, one is not named.
    """
    for sentence in unknown():
        print(sentence, file=sys.stderr)  # noqa: T201 - not yet known how logs are to look
    check(settings())
    for sentence in advice(settings()):
        print(sentence, file=sys.stderr)  # noqa: T201
    if needs_servers and (missing := settings().missing()):
        raise BadSettings(UNSET.format(missing))


def begin_or_exit(*, needs_servers: bool = False) -> None:
    """As `begin`, for a program: it ends with the sentence on stderr."""
    try:
        begin(needs_servers=needs_servers)
    except BadSettings as exc:
        sys.exit(str(exc))


def unknown() -> Iterator[str]:
    """A sentence for each name in the environment, or in `.env`, that looks like a setting."""
    known = {name(field) for field in Settings.model_fields}
    given = {key.upper() for key in (*os.environ, *DotEnvSettingsSource(Settings).env_vars)}
    for stranger in sorted(given - known - BETWEEN_US):
        if stranger.startswith(PREFIX):
            near = get_close_matches(stranger, known, n=1)
            hint = f"did you mean {near[0]}?" if near else ".env.example lists all there are."
            yield f"{stranger} is not a setting and does nothing: {hint}"
