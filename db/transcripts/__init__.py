"""Transcripts of sessions: what several forks share is stored once."""
