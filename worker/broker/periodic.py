"""Which clean-up there is, and its way: from beat, through a queue of its own, past the agents.

A worker's slots may all run agents, for an hour each. So clean-up does not go through its pool:
the main process reads this queue beside the others, and a thread of it does what is asked.
"""

QUEUE = "upkeep"
PREFIX = "tasks.upkeep."
NAMES = (
    *("mark_stale", "archive_transitions", "drop_branches", "prune_transcripts"),
    *("clear_jobs", "census", "sweep"),
)
MOST = 100  # messages that wait while no worker is online; the newest are kept
