"""Text and data that Postgres can hold: agents, models and file systems give what it cannot."""

import json
from typing import Any, cast


def plain(text: str) -> str:
    """The text without NUL and without halves of surrogate pairs."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def plain_data(value: Any) -> Any:
    """JSON data, every text in it made plain."""
    match value:
        case str():
            return plain(value)
        case list():
            return [plain_data(each) for each in cast(list[Any], value)]
        case dict():
            parts = cast(dict[str, Any], value)
            return {plain(name): plain_data(each) for name, each in parts.items()}
        case _:
            return value


def written(value: Any) -> str:
    """The value as JSON that UTF-8 can carry: halves of surrogate pairs are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), default=str)
    return text
