"""The names that messages go by in Redis."""

QUEUE = "baton"
BELL = "baton:bell"  # a channel: those who hear it look for work at once
PLAIN = "celery"  # the queue of producers that know nothing of us
