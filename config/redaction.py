"""Secrets taken out of what is written down: logs, errors for people, what git says.

By name (a field, a header, `password=…`) and by look (keys of providers, tokens, users of a
URL), at any depth. What cannot be told apart is taken out too: a log is poorer for it, no more.
No pattern goes back over a text more than a few hundred characters.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

HIDDEN = "[secret]"
DEEPEST = 20  # levels; what is nested deeper is left out
NAMES = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|cookie|authorization|basic[_-]?auth"
    r"|(?:api|private|access|secret)[_-]?key"
)
QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
BY_NAME = re.compile(rf"(?:.*[^a-z0-9])?(?:{NAMES})", re.IGNORECASE | re.DOTALL)
# What stays before the secret is the pattern's first group.
PATTERNS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"()-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)",
        r"()\bsk-[A-Za-z0-9_-]{6,}",
        r"()\b(?:AKIA|ASIA)[A-Z0-9]{12,}",
        r"()\b(?:gh[pousr]|github_pat|glpat|npm|hf|pypi)[_-][A-Za-z0-9_-]{16,}",
        r"()\bxox[a-z]-[A-Za-z0-9-]{8,}",
        r"()\bAIza[A-Za-z0-9_-]{30,}",
        r"()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
        # Whom a URL is for: a name and a password, which may have a slash; a name or a token.
        r"(://)[^\s/@:\"'<>]{0,300}:[^\s\"'<>]{0,300}(?=@)",
        r"(://)[^\s/@\"'<>]{1,300}(?=@)",
        r"((?i:\bbearer)\s+)\S+",
        r"((?i:\bbasic)\s+)(?=\S{0,300}[A-Z0-9+/=])[A-Za-z0-9+/=_-]{6,}",
        r"((?i:[?&](?:key|sig|signature|code)=))[^\s&#\"']+",
        rf"((?i:(?<![a-z0-9])[\w.-]{{0,40}}?(?:{NAMES}))[\"']?\s{{0,9}}[=:]\s{{0,9}})"
        rf"(?!\[secret\])(?:{QUOTED}|[^\s\"',;&)\]}}]+)",
    )
)


def redacted(text: str) -> str:
    """The text without what is, or may be, a secret."""
    for pattern in PATTERNS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def cleaned(value: Any, *, depth: int = 0) -> Any:
    """The value without secrets, whatever it is made of."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return redacted(value)
        case _ if depth >= DEEPEST:
            return "…"
        case Mapping():
            found = cast(Mapping[Any, Any], value)
            return {
                cleaned(name): HIDDEN if _hides(name, each) else cleaned(each, depth=depth + 1)
                for name, each in found.items()
            }
        case list() | tuple() | set() | frozenset():
            return [cleaned(each, depth=depth + 1) for each in cast(list[Any], value)]
        case _:
            told = repr(value)
            return value if (clean := redacted(told)) == told else clean


def _hides(name: Any, value: Any) -> bool:
    """Whether what goes by this name is a secret: a text or bytes, and not empty."""
    known = isinstance(name, str) and BY_NAME.fullmatch(name)
    return bool(known and value and isinstance(value, str | bytes | bytearray))
