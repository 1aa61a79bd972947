"""What can go wrong: an error class for each, what is done about it, and what people are told.

    the CLI's words ──► vocabulary ──► errors ──► verdicts ──► sentences

`refused` has the refusals of requests, `retry` the pauses between tries.
"""
