"""A job that kills its worker each time is set aside, and everything else goes on."""

import pytest

from tests.faults.conftest import Tally
from tests.faults.transport.cheap_worker import POISON
from tests.faults.transport.struck import Struck
from worker.client import ChatPlan

pytestmark = pytest.mark.timeout(360)

LIMIT = 3  # BATON_RESCUE_LIMIT


@pytest.mark.long
@pytest.mark.parametrize("kills", ["child", "worker"])
def test_poison(struck: Struck, tally: Tally, kills: str):
    tally.fault, tally.simulated = f"a job that kills its {kills} each time", "agent scripted"
    struck.same_worker = kills == "child"
    project, poison = struck.cheap(), struck.baton.root / POISON
    poison.touch()
    try:
        bad = struck.baton.ask(
            ChatPlan(project=project, user="ann", prompt=f"pause 1\nkill the {kills}")
        )
        behind = struck.baton.ask(ChatPlan(project=project, user="ann", prompt="go"))
        (long,) = struck.chats(1, "pause 4")
        beside = [long, *struck.chats(5)]
        set_aside = struck.baton.over(bad)
        struck.ended([behind, *beside])
    finally:
        poison.unlink()
    tally.ran(LIMIT)
    assert (set_aside["state"], set_aside["rescues"]) == ("quarantined", LIMIT)
    (told,) = struck.baton.events(project, "job.quarantined")
    assert "baton retry" in told["body"]["error"]
    assert len(struck.baton.events(project, "job.rescued")) == LIMIT - 1
    again = struck.baton.cli_json("retry", str(bad))
    assert struck.baton.over(again["id"])["state"] == "done"
    assert struck.runs()[project] == LIMIT + 2
    if kills == "worker":  # or it has not been beside it often enough to show anything
        assert struck.baton.job(long)["rescues"] == LIMIT - 1
    tally.check(struck.wrong([behind, *beside]))
