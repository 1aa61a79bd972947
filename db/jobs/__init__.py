"""Jobs: asking for them, whose turn it is, who runs one, how an attempt ends, what waits and why.

    queued ── claim (attempts) ──► running ──► done, failed, cancelled (endings)
      ▲                              │
      └── put back, rescued ─────────┘

`lanes` has what the statements share, `outbox` says for which jobs a message is owed. `workers`,
`relays` and `beats` say which processes are there to carry them.
"""
