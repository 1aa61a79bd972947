-- Checks: commands that say whether a version is good, what each came to, and what a project's are.
create table if not exists checks (
    id           bigint generated always as identity primary key,
    job_id       uuid not null,
    attempt      uuid not null,
    project_id   text not null,
    version_id   text,
    round        int not null,
    number       int not null,
    command      text not null,
    outcome      text not null check (outcome in ('passed', 'failed')),
    exit_status  int,
    signal       int,
    reason       text,
    duration_ms  bigint not null,
    output_head  text not null,
    output_tail  text not null,
    output_bytes bigint not null,
    failure      text,
    tree         text,
    changed      jsonb not null default '[]',
    at           timestamptz not null default now(),
    unique (job_id, round, number)
);
comment on table checks is
    'Each command of a check that came to an end: what it was, how it ended, what it printed.';
comment on column checks.round is '0: after the request''s own turn; n: after the n-th repair.';
comment on column checks.number is 'Which of the commands, in their order, from 1.';
comment on column checks.reason is
    'Why it was ended: timeout or limit; null: it ended by itself, or by the signal.';
comment on column checks.output_tail is
    'What follows what was left out after output_head; empty where nothing was.';
comment on column checks.failure is
    'A digest of how it failed: the same failure again has the same. Null: it passed.';
comment on column checks.tree is 'The git commit of the workspace that was checked.';
comment on column checks.changed is 'The version''s own files that the command has changed.';
create index if not exists checks_project on checks (project_id);

create table if not exists project_checks (
    project_id text primary key,
    commands   jsonb not null,
    set_at     timestamptz not null default now()
);
comment on table project_checks is
    'The check of a project, for every build that names none itself; an empty list: none.';

-- step: in a transaction
alter table project_versions
    add column if not exists check_status text not null default 'unchecked';
comment on column project_versions.check_status is
    'What its newest check came to: unchecked, passing or failing. Baton''s own: status is the product''s.';
