"""Reading a class of settings from the environment; what is wrong there, as a sentence for people."""

from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings

PREFIX = "BATON_"

Read = TypeVar("Read", bound=BaseSettings)
Span = tuple[Any, Any]


class BadSettings(Exception):
    """The environment says something that cannot be; the text names it."""

    __module__ = "config.settings"  # where others have it from


def read(kind: type[Read]) -> Read:
    """The settings as the environment says them now. Raises BadSettings."""
    try:
        return kind()
    except ValidationError as exc:
        # Not `from exc`: that repeats the value, and with it a password.
        raise BadSettings(_sentence(kind, exc.errors()[0])) from None
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise BadSettings(f"{Path('.env').absolute()} cannot be read: {why}.") from exc


def name_in(kind: type[BaseSettings], field: str) -> str:
    """What the environment calls a field."""
    alias = kind.model_fields[field].validation_alias
    return str(alias) if alias else f"{PREFIX}{field.upper()}"


def span_in(kind: type[BaseSettings], field: str) -> Span | None:
    """The least and the greatest value of a field, of its own type; None: it is no number."""
    least = most = None
    for one in kind.model_fields[field].metadata:
        least, most = getattr(one, "ge", least), getattr(one, "le", most)
    return None if most is None else (least, most)


def number(value: Any) -> str:
    """A value of a setting as one would write it: durations in seconds."""
    plain: float = value.total_seconds() if isinstance(value, timedelta) else value
    return str(int(plain)) if plain == int(plain) else f"{plain:g}"


def _sentence(kind: type[BaseSettings], error: ErrorDetails) -> str:
    """What is wrong with a value. Only numbers are repeated: addresses and keys hold secrets."""
    place = str(error["loc"][0])
    variable = place if place.isupper() else name_in(kind, place)
    match error["type"]:
        case "value_error":
            wrong = str(error.get("ctx", {}).get("error"))
        case "greater_than_equal" | "less_than_equal":
            least, most = span_in(kind, place) or ("", "")
            unit = " seconds" if isinstance(most, timedelta) else ""
            wrong = f"must be from {number(least)} to {number(most)}{unit}"
        case "int_parsing" | "int_from_float":
            wrong = "must be a whole number"
        case "bool_parsing":
            wrong = "must be true or false"
        case _:
            wrong = error["msg"].partition(", unable")[0].replace("Input should", "must")
    return f"{variable} is not usable: it {wrong}."
