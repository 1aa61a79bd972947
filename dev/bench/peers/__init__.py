"""What one would take instead: the same chain of three steps in other ways, each a small program.

celery_app        a plain durable Celery chain with no database (the base), or with a naive ledger
procrastinate_app jobs in Postgres, each of which defers the next
dbos_app          a durable workflow of three steps in Postgres

A step does nothing but say that it was there (marks.py). `pip install 'baton-jobs[bench]'` brings what
some of them need; one that is not installed is left out, and said.
"""
