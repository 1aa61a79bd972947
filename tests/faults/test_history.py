"""The soak's checker finds what it is there to find: each of these histories is broken in one way."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.history import Asked, Heard, History, Step, broken
from tests.faults.nemesis import schedule
from tests.faults.reading import heard_by_deeds

ONE, TWO = "write one.txt: 1", "say two"


def whole() -> History:
    """Two requests of one project, both committed, the first on its second attempt."""
    return History(
        asked=[
            Asked("p", "j1", ONE, "done", ("one.txt", "1")),
            Asked("p", "j2", TWO, "done"),
            Asked("p", "j3", "write no.txt: 3", "cancelled", ("no.txt", "3")),
        ],
        heard=[
            Heard(1.0, "p", "lost", (ONE,)),
            Heard(2.0, "p", "s1", (ONE,)),
            Heard(3.0, "p", "s2", (ONE, "… your recommendations …")),
            Heard(4.0, "p", "s3", (ONE, "… your recommendations …", TWO)),
        ],
        files={"p": {"one.txt": "1", "DOCUMENTATION.md": "none"}},
        steps={
            "p": [
                Step("j1", "build", "s1", None, "build"),
                Step("m1", "recommendations", "s2", "s1", "metadata"),
                Step("j2", "chat_plan", "s3", "s2", "chat_plan"),
            ]
        },
        heads={"p": "s3"},
    )


def lost_request(run: History) -> None:
    run.asked[1] = replace(run.asked[1], state="")


def endless_request(run: History) -> None:
    run.asked[1] = replace(run.asked[1], state="running")


def lost_step(run: History) -> None:
    run.heard[3] = replace(run.heard[3], prompts=(ONE, TWO))


def doubled_step(run: History) -> None:
    run.heard[3] = replace(run.heard[3], prompts=(ONE, ONE, "recommendations", TWO))


def reordered_steps(run: History) -> None:
    run.heard[3] = replace(run.heard[3], prompts=("recommendations", ONE, TWO))


def step_that_was_never_asked(run: History) -> None:
    del run.heard[3]


def step_without_its_prompt(run: History) -> None:
    run.heard[3] = replace(run.heard[3], prompts=(ONE, "recommendations", "something else"))


def done_and_not_committed(run: History) -> None:
    run.steps["p"].pop()
    run.heads["p"] = "s2"


def committed_twice(run: History) -> None:
    run.steps["p"].insert(1, Step("j1", "build", "s1", "s1", "build"))


def cancelled_and_committed(run: History) -> None:
    run.asked[1] = replace(run.asked[1], state="cancelled")


def broken_path(run: History) -> None:
    run.steps["p"][2] = replace(run.steps["p"][2], old="s1")


def head_elsewhere(run: History) -> None:
    run.heads["p"] = "s2"


def two_agents_at_once(run: History) -> None:
    run.heard.append(Heard(2.5, "p", "lost", (ONE,)))


def forgotten_past(run: History) -> None:
    run.steps["p"][2] = replace(run.steps["p"][2], source="fallback")
    run.heard[3] = replace(run.heard[3], prompts=(TWO,), history="")


def lost_file(run: History) -> None:
    del run.files["p"]["one.txt"]


def other_content(run: History) -> None:
    run.files["p"]["one.txt"] = "2"


def file_of_a_cancelled_request(run: History) -> None:
    run.files["p"]["no.txt"] = "3"


BREAKS = [
    lost_request,
    endless_request,
    lost_step,
    doubled_step,
    reordered_steps,
    step_that_was_never_asked,
    step_without_its_prompt,
    done_and_not_committed,
    committed_twice,
    cancelled_and_committed,
    broken_path,
    head_elsewhere,
    two_agents_at_once,
    forgotten_past,
    lost_file,
    other_content,
    file_of_a_cancelled_request,
]


def test_nothing_is_found_in_a_whole_history():
    assert broken(whole()) == []


@pytest.mark.parametrize("spoil", BREAKS)
def test_a_broken_history_is_found_out(spoil: Callable[[History], None]):
    run = whole()
    spoil(run)
    assert broken(run)


def test_a_fallback_that_retells_the_past_is_no_loss():
    run = whole()
    run.steps["p"][2] = replace(run.steps["p"][2], source="fallback")
    run.heard[3] = replace(run.heard[3], prompts=(TWO,), history="You were asked for one.txt.")
    assert broken(run) == []


def test_a_turn_that_was_gone_on_from_counts_once():
    run = whole()
    run.heard[3] = replace(
        run.heard[3],
        prompts=(*run.heard[2].prompts, TWO, "You were interrupted: … It said:\n\nsay two"),
    )
    assert broken(run) == []


def test_a_seed_draws_the_same_storm_again():
    assert schedule(7, 60) == schedule(7, 60)
    assert schedule(7, 60) != schedule(8, 60)


def test_a_line_that_its_writer_was_killed_over_takes_no_other_with_it(tmp_path: Path):
    log = tmp_path / "deeds"
    one, torn, two = (f'{{"at": {n}, "project": "p", "session": "s{n}"' for n in (1, 2, 3))
    log.write_text(f"\n{one}}}\n{torn}\n{two}}}")
    assert [one.session for one in heard_by_deeds(log)] == ["s1", "s3"]
