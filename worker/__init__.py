"""How work is run. Two processes (`app`, `relay`), what producers import (`client`), and rooms.

Imports go down one list: cli, app and relay, reports, cleanup, job, session, agent, sandbox, client,
workspace, broker, webhooks, live, process, failures, text (docs/decisions/0021).
"""
