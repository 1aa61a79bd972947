"""A terminal's screen that is drawn anew again and again, and is as it was before at the end."""

import shutil
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

OTHER, BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the other screen, no cursor
HOME, REST, LINE = (
    "\x1b[H",
    "\x1b[J",
    "\x1b[K",
)  # go to the top; clear what is below, to the right


@contextmanager
def redrawn() -> Generator[Callable[[Sequence[str]], None]]:
    """A function that draws these lines, as many as there is room for. What it drew last stays
    on the screen when the block has ended, however it ends."""
    last = list[str]()

    def draw(lines: Sequence[str]) -> None:
        last[:] = lines
        room = shutil.get_terminal_size().lines - 1
        shown = [*lines[: room - 1], "…"] if len(lines) > room else lines
        sys.stdout.write(HOME + "".join(f"{line}{LINE}\n" for line in shown) + REST)
        sys.stdout.flush()

    sys.stdout.write(OTHER)
    try:
        yield draw
    finally:
        sys.stdout.write(BACK + "".join(f"{line}\n" for line in last))
        sys.stdout.flush()
