"""What an agent's git is told."""

from pathlib import Path

from worker.workspace import git


def test_an_agents_git_stops_below_each_directory_that_can_be_named():
    around = git.for_agents(Path("/srv/a:b/c/shop"))["GIT_CEILING_DIRECTORIES"]
    assert around == "/srv:/"
    assert git.for_agents(Path("/srv/w/shop"))["GIT_CEILING_DIRECTORIES"] == "/srv/w:/srv:/"
