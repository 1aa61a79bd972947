-- A job that one more death would set aside is not to be set aside for what another one did: of
-- such jobs a worker runs one at a time. Which worker: `worker_id`, its main process.

alter table jobs add column if not exists last_chance boolean not null default false;
comment on column jobs.last_chance is
    'When its newest attempt was claimed, one more death of its worker would have set it aside.';
