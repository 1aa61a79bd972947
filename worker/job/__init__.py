"""One job, from its claim to its verdict.

    delivery ──► run ──► legs ──► turn ──► commit ──► the chain's next job (successors)
                  │                │
                  │                └── failed ──► fallback decides: next candidate, compacted, fresh
                  └──► endings: to be tried again, parked, failed

`attempt` is the state that all of them take, `lease` what holds the job meanwhile, `files` brings
the project's files here, `job_events` has the events that an attempt writes.
"""
