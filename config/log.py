"""The logger of every module. structlog, with the rich that it brings along, takes 0.1 s of a
core to import: it is imported with the first line that is logged, and most commands log none."""

from functools import cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@cache
def _logger() -> Any:
    import structlog

    return structlog.get_logger()


class _Log:
    def __getattr__(self, name: str) -> Any:
        return getattr(_logger(), name)


log = cast("FilteringBoundLogger", _Log())
