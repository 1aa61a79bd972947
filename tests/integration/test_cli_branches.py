"""Branches and templates at the command line."""

from psycopg import Connection

from tests import ledger
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.commandline import baton as baton


def test_a_branch_is_shown_and_promoted(baton: Baton, conn: Connection):
    head = ledger.built(conn).head
    assert "has no branches" in baton("branches", "p").out
    asked = baton(
        "enqueue", "chat-plan", "--project", "p", "--user", "u", "--prompt", "what",
        "--branch-from", str(head), "--json",
    ).document  # fmt: skip
    (branch,) = baton("branches", "p", "--json").document["branches"]
    assert (branch["lane"], branch["from_session"]) == (asked["lane"], head)
    refused = baton("promote", "p", branch["lane"])
    assert (refused.code, "no turn of its own" in refused.err) == (1, True)
    job = ledger.claim(conn, asked["id"])
    assert job
    assert job.head == head
    minted = ledger.turn(conn, job)
    assert ledger.advance(conn, job, minted)
    assert baton("promote", "p", branch["lane"]).out.startswith(f"Its session is {minted} now")
    (*_, last) = baton("chain", "p", "--json").document["moves"]
    assert (last["source"], last["new_session_id"]) == ("fork", minted)


def test_a_branch_is_dropped_once(baton: Baton, conn: Connection):
    head = ledger.built(conn).head
    job = ledger.begun(conn, "chat_plan", options={"branch_from": head})
    open_yet = baton("branches", "p", "--drop", job.lane)
    assert (open_yet.code, f"Job {job.id} of the branch is open" in open_yet.err) == (1, True)
    ledger.commit(conn, job)
    dropped = baton("branches", "p", "--drop", job.lane, "--json").document
    assert dropped["project_id"] == "p"
    assert dropped["done"][0].startswith(f"Branch {job.lane} is dropped")
    assert "has no branches" in baton("branches", "p").out
    again = baton("branches", "p", "--drop", job.lane)
    assert (again.code, again.err) == (
        1,
        f"The project has no branch {job.lane}: see `baton branches p`.\n",
    )
    retried = baton("retry", str(job.id))
    assert (retried.code, "The branch of that job was dropped" in retried.err) == (1, True)


def test_a_session_that_is_none_is_refused_in_one_sentence(baton: Baton, conn: Connection):
    ledger.built(conn)
    wrong = baton(
        "enqueue", "chat-plan", "--project", "p", "--user", "u", "--prompt", "x",
        "--branch-from", "main",
    )  # fmt: skip
    assert wrong.code == 2
    unknown = baton(
        "enqueue",
        "build",
        "--project",
        "new",
        "--user",
        "u",
        "--prompt",
        "x",
        "--template",
        "no",
    )
    assert (unknown.code, "There is no template no" in unknown.err) == (1, True)
