"""The live side's own truth: accounts and their keys, whose a project is, who is connected.

Written by gateways (async) and by the command line (sync); nothing here holds a project's row.
"""
