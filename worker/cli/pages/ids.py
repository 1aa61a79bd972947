"""Ids in pages: whole in pipes, and at a terminal the least that tells one from all others."""

from collections.abc import Mapping
from typing import Any

from worker.cli.pages.layout import Name

Names = Mapping[Any, Name]  # by the id; empty where nobody looked them up


def named(one: Any, names: Names) -> Any:
    """The id as a page has it; what is no id (None) stays as it is."""
    return names.get(one, one)


def short(one: Any, names: Names) -> str:
    """The least of the id, for a sentence or a narrow place; `none` for none."""
    if one is None:
        return "none"
    found = names.get(one)
    return found.short if found else str(one)[:8]
