-- What was spent today, for budgets (db/sessions/budgets.py): asked before each turn where one is set.

-- step: by itself
create index concurrently if not exists turns_started on turns (started_at);
