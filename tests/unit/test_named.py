"""Names of files are told in part, and counted."""

from worker import named
from worker.named import LeftOut


def test_as_many_names_are_told_as_there_is_room_for():
    assert named.first_of(["a", "b", "c"], most=2) == ["a", "b"]
    long = ["x" * 3000] * 10
    assert named.first_of(long) == long[:6]
    assert named.first_of(["a\udcff\x00"]) == ["a?\ufffd"]


def test_what_is_left_out_is_counted_whole():
    left = [LeftOut(f"{number:04}", "pipe") for number in range(1000)]
    told = named.told(left)
    assert (told["count"], len(told["names"])) == (1000, named.MOST_LEFT_OUT)
    assert told["names"][0] == {"name": "0000", "why": "pipe"}
