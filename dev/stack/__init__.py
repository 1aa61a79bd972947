"""`baton up`: the embedded servers, every process of the Procfile, and keeping them alive.

up ──► services (embedded, server) ──► supervisor ──► the processes ──► readiness ──► "ready"
"""
