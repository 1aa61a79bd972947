"""Celery and Redis as transport. A message only wakes: nothing is lost with one.

    row that is due ── publish ──► Redis ──► consumer ──► a child of the pool ──► worker.job.delivery

`app` is the Celery application, `connection` its way to Redis, `bell` wakes the relay. The others
notice what a broker does not tell: lost children and messages, a worker that is deaf, a revoke, a
beat that stands still.
"""
