"""Who this process is, and what outlives it.

`identity` names it for others, `drain` and `fence` say whether it may go on, `reaper` ends what
dead ones left, `crash_points` are the moments at which tests strike it.
"""
