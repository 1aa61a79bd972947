"""What is true: Postgres. Every decision of the product is one statement here.

Imports go down this list: operations, sessions, transcripts, projects, jobs, core.
"""
