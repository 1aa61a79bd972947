"""The egress proxy, one a worker's host: all that agents reach of the network goes through it.

    box:  CLI ─► bridge ─┐                          ┌─► the model's API, with the key
                         ├─ Unix socket ─► proxy ───┤
    box: tool ─► bridge ─┘   (a turn's token)       └─► hosts of BATON_EGRESS

`server` takes connections and says what each request is · `turns` whose token it has · `model`
sends it to the model's API with the key in the token's place · `meter` counts what that costs ·
`tunnel` and `judge` let it through to a host that is on the list · `answers` says no.

It imports settings and the ledger, and nothing of the worker: what it does must not depend on
what an agent's worker does.
"""
