"""The database itself: connections, migrations, events, refusals. Knows nothing of jobs.

Functions of today lie in db/functions, what led there in db/migrations, the result in db/schema.sql.
"""
