"""What is new in the projects that are watched here, asked of Postgres once however many watch.

Redis stream ──ring──► doorbell ──► feed (one a project) ──► those who watch
Postgres log ──pages──────────────►   the newest events
"""
