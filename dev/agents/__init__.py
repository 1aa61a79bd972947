"""Agents without a CLI."""
