"""Names of files are told in part, and counted."""

from worker.text import file_names
from worker.text.file_names import LeftOut


def test_as_many_names_are_told_as_there_is_room_for():
    assert file_names.first_of(["a", "b", "c"], most=2) == ["a", "b"]
    long = ["x" * 3000] * 10
    assert file_names.first_of(long) == long[:6]
    assert file_names.first_of(["a\udcff\x00"]) == ["a?\ufffd"]


def test_what_is_left_out_is_counted_whole():
    left = [LeftOut(f"{number:04}", "pipe") for number in range(1000)]
    told = file_names.told(left)
    assert (told["count"], len(told["names"])) == (1000, file_names.MOST_LEFT_OUT)
    assert told["names"][0] == {"name": "0000", "why": "pipe"}
