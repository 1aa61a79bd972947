"""One job, from its claim to its verdict.

delivery ──► run ──► lease
              │
              ├──► attempt ── a turn ──► commit ──► the next job of the chain (successors)
              │      └── fails ──► fallback: another candidate, compacted, or fresh
              └──► endings: done, to be tried again, parked, failed
"""
