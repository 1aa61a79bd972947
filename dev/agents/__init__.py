"""Agents without a CLI, for the bench and for tests of the ledger."""
