"""Telling whoever asked that a chain has ended: one signed POST, tried for a day.

chain ends ──trigger──► webhooks (a row) ──► sender, in every relay ──► post ──► their server

The address is a stranger's: it is resolved once, looked at, and connected to as it was looked at.
"""
