"""`/v1/live`: one WebSocket, one project's log, which the client applies exactly once.

A connection sends only the number after the last it sent. What the feed does not hold any more is
read from Postgres. What the client says is a job row first, and its ack goes out after the commit.
"""
