"""What can be got can be asked about: a place that has GET has HEAD, whose answer is the same without
its body."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter

Work = TypeVar("Work", bound=Callable[..., Any])


def got(router: APIRouter, path: str, **how: Any) -> Callable[[Work], Work]:
    """The route of GET and that of HEAD, of which the document tells the first."""

    def both(work: Work) -> Work:
        router.add_api_route(path, work, methods=["HEAD"], include_in_schema=False)
        return router.get(path, **how)(work)

    return both
