"""The door for everybody else: producers over HTTP, people in a browser or on a phone.

    producer ──HTTP, key──►  http  ──► worker.client ──► Postgres (a job row)
    browser  ──WebSocket──►  live  ──► worker.client      │ events, in commit order
                             live  ◄── log ◄──────────────┘
                               ▲────── Redis: a doorbell, and what agents do now

Any number of gateways run side by side. A gateway keeps nothing but its open connections: Postgres'
log is the truth, Redis rings, and without Redis the log is asked twice a second.
"""
