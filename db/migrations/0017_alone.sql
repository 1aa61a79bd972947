-- A job that one more death would set aside is not to be set aside for what another one did: of
-- such jobs a worker runs one at a time. Which worker: `worker_id`, its main process.

alter table jobs add column if not exists last_chance boolean not null default false;
comment on column jobs.last_chance is
    'One more death of its worker sets this attempt''s job aside.';

create unique index if not exists jobs_last_chance on jobs (worker_id)
    where state = 'running' and last_chance;
