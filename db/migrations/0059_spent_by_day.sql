-- What was spent in a day, added up as turns end: a budget's sum reads a row and the newest turns, not all
-- turns of the day (db/sessions/budgets.py).
-- was: 69f20ace2248b72d54af3061b72413edbfcdd6398c0838d42d1b9cd566813c1a

-- step: in a transaction
create table if not exists spent_by_day (
    day        date    not null,
    project_id text    not null default '',
    user_id    text    not null default '',
    usd        numeric not null,
    turns      integer not null,
    primary key (day, project_id, user_id)
);
comment on table spent_by_day is
    'What turns that have ended cost on a day (UTC): of a project, of a user, and (both empty) of all.';
alter table turns add column if not exists counted_usd numeric;
comment on column turns.counted_usd is 'How much of its cost is in spent_by_day; null: it is not there yet.';

-- step: by itself
create index concurrently if not exists turns_uncounted on turns (started_at)
    where counted_usd is distinct from greatest(cost_usd, spent_usd, 0::numeric);
