"""The stand-in model: the Messages API on loopback, with scripted answers and faults on cue.

api (the wire) ──► model ──► conversation: what is asked ──► reply, by a scenario's rules
"""
