"""Going through a table in pages, as far as the time reaches."""

import time

from db.core.walks import Key, Walk

ROWS = list(range(10))


def page_of(size: int, *, done: int = 1, seen: list[int] | None = None):
    """Pages of ROWS; each says that it did `done`."""

    def page(after: Key | None) -> tuple[int, Key | None]:
        begin = after[0] + 1 if after else 0
        rows = ROWS[begin : begin + size]
        if seen is not None:
            seen.extend(rows)
        return done, [rows[-1]] if rows and rows[-1] < ROWS[-1] else None

    return page


def test_without_limits_all_is_gone_through_and_the_next_begins_anew():
    walk, seen = Walk(), list[int]()
    assert walk.go(page_of(4, seen=seen)) == 3
    assert (seen, walk.after, walk.over) == (ROWS, None, False)


def test_when_its_time_is_up_it_stops_between_two_pages_and_the_next_goes_on_from_there():
    walk, seen = Walk(until=time.monotonic() - 1), list[int]()
    assert walk.go(page_of(4, seen=seen)) == 1
    assert (walk.after, walk.over) == ([3], True)
    assert Walk(walk.after).go(page_of(4, seen=seen)) == 2
    assert seen == ROWS


def test_it_looks_in_vain_for_less_long_than_it_works():
    idle = Walk(in_vain=0.0)
    assert idle.go(page_of(4, done=0)) == 0
    assert (idle.after, idle.over) == ([3], False), "nothing is known to be due"
    assert Walk(in_vain=0.0).go(page_of(4)) == 3
