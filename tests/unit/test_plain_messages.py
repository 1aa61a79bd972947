"""A plain Celery message that is no request is told so in the words in which it was written."""

from typing import Any

import pytest

from worker.broker.refused_messages import RefusedMessage
from worker.job import delivery


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"project_id": "p"}, "user_id"),
        ({"user_id": "u"}, "project_id"),
        ({"project_id": 5, "user_id": "u"}, "project_id"),
        ({"project_id": "p", "user_id": "u", "version_id": []}, "version_id"),
        ({"project_id": "p", "user_id": "u", "priority": "x"}, "priority"),
    ],
)
def test_the_field_that_is_wrong_has_the_name_that_messages_give_it(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], named: str
):
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/none")
    with pytest.raises(RefusedMessage, match=f"^The message's {named}: "):
        delivery.accept("build", "task", asked)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (("shop",), {"project_id": "cafe"}),
        ((), {"project": "shop", "project_id": "cafe"}),
        (("shop",), {"project": "cafe"}),
    ],
)
def test_what_is_given_twice_is_refused_and_not_chosen_from(
    given: tuple[str, ...], asked: dict[str, Any]
):
    with pytest.raises(RefusedMessage, match="project_id is given twice"):
        delivery.named(given, asked)


def test_fields_come_by_place_and_by_name():
    fields = delivery.named(("shop", "ann"), {"prompt": "x", "version": "v1"})
    assert fields == {"project_id": "shop", "user_id": "ann", "prompt": "x", "version_id": "v1"}
