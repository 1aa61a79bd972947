"""A project's files: a directory at a stable path, and a git repository that lies apart from it.

    directory ── survey: what can be kept ──► index ──► trees: a commit ──► transport ──► other hosts

`workspace` is what a job calls; `refs` says what the repository's names mean, `branch_places` has
the directories of lines beside the main one, `repositories` keeps repositories small, `leftovers`
finds what a deleted project has left, `importing` and `diff` take files in and out for people.
"""
