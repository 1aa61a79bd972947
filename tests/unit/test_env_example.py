"""`.env.example` names every setting, its meaning and its true default."""

import re

import pytest

from config.settings import Settings, name, number, settings, span
from dev.stack.procfile import CODE
from tests.conftest import Configure

LINES = (CODE / ".env.example").read_text().splitlines()
SETTING = re.compile(r"#([A-Z_]+)=(.*)")
GIVEN = {found[1]: found[2] for line in LINES if (found := SETTING.fullmatch(line))}


def test_every_setting_is_named_and_nothing_else():
    assert set(GIVEN) == {name(field) for field in Settings.model_fields}


def test_every_setting_has_a_line_that_says_what_it_means():
    for line, above in zip(LINES[1:], LINES, strict=False):
        if SETTING.fullmatch(line):
            assert re.fullmatch(r"# \S.*\.", above), f"{line} has no meaning above it"


@pytest.mark.parametrize("field", [field for field in Settings.model_fields if span(field)])
def test_the_range_is_as_told(field: str):
    least, most = span(field) or (0, 0)
    above = LINES[LINES.index(f"#{name(field)}={GIVEN[name(field)]}") - 1]
    assert above.endswith(f" ({number(least)} to {number(most)}).")


@pytest.mark.parametrize("field", Settings.model_fields)
def test_the_default_is_as_told(field: str, configure: Configure):
    untouched = getattr(settings(), field)
    told = GIVEN[name(field)]
    if told:
        configure(**{name(field): told})
    else:
        assert not getattr(untouched, "get_secret_value", lambda: untouched)(), "empty is told"
    assert getattr(settings(), field) == untouched
