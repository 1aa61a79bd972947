"""What holds an agent: a box around it, and a keeper that lets it outlive nothing.

    worker ── leash: fed with each renewal of the lease ──► keeper ── box ──► agent and its tools

A worker that is stopped, cut off or dead feeds nothing, and the keeper ends all below it.
"""
