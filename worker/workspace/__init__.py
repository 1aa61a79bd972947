"""A project's files: a directory at a stable path, and a git repository beside it.

Each version is a commit; `refs` says what the repository's names mean, `transport` and `remote`
bring a tree to another host, `branches` has the directories of lines beside the main one, `upkeep`
keeps repositories small, `survey` looks at what an agent left before git does.
"""
