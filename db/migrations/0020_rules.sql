-- What rules in SQL need: the settings that they go by, and when each user asked last.
-- was: 49d9b2c093f639cad77cbd232bcdb15f58b79537762f7283b2746dfddcbd937a

create table baton_settings (
    name  text primary key,
    value jsonb not null,
    at    timestamptz not null default now()
);
comment on table baton_settings is
    'Settings of the environment that hold for every door: the newest worker''s, or those that were '
    'given to `baton migrate` (db/ledger_settings.py).';

create table user_asks (
    user_id text primary key,
    asked   timestamptz[] not null
);
comment on table user_asks is
    'When each user asked for jobs in the last minute. Written where BATON_USER_RATE is set.';

-- step: in batches of 1000 rows of jobs by id
-- A time that Python cannot read hides every job in the list with it. Jobs that were put off for
-- good wait until somebody cancels them.
update jobs
   set run_at = least(greatest(run_at, '2000-01-01Z'), '9999-01-01Z'),
       publish_after = least(greatest(publish_after, '2000-01-01Z'), '9999-01-01Z')
 where id between :first and :last
   and (run_at not between '2000-01-01Z' and '9999-01-01Z'
        or publish_after not between '2000-01-01Z' and '9999-01-01Z');
