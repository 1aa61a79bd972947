"""Celery and Redis as transport. A message only wakes; nothing is lost with one.

`app` is the Celery application, `publish` sends what is due, `consumer` looks at what arrives.
The others notice what a broker does not tell: lost children and messages, a worker that is
deaf, a revoke, a beat that stands still.
"""
