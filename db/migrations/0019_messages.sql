-- What Celery's messages leave that is no job: a revoke that comes before its job's row, and
-- a message that was refused. And which beats there are. All of it goes after a week.

create table revoked_tasks (
    job_id     uuid primary key,            -- the job that the task is, or would become
    at         timestamptz not null default now(),
    applied_at timestamptz                  -- its job was cancelled, or cannot be any more
);
create index revoked_tasks_open on revoked_tasks (at) where applied_at is null;
comment on table revoked_tasks is
    'Revokes, kept until the job is there to be cancelled: a worker that takes the message of a '
    'revoked task makes its row as cancelled.';

create table refused_messages (
    task_id text primary key,               -- as the producer knows it
    task    text not null,
    code    text not null,
    error   text not null,                  -- one sentence; never what the message held
    times   int not null default 1,
    at      timestamptz not null default now()
);
create index refused_messages_at on refused_messages (at);
comment on table refused_messages is
    'Celery messages of which no job was made, and why. code: unknown_task, no_task, unreadable, '
    'plain_off, or that of a refusal (docs/jobs.md).';

create table beats (
    id         uuid primary key,            -- of one start
    host       text not null,
    pid        int not null,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now()
);
comment on table beats is
    'Each start of a beat; seen_at is when its scheduler last looked at what is due.';
