-- The ledger: projects and the head of each, versions, transitions, sessions, chat.
-- These names may already be tables of the product: what is there is kept, what is
-- missing is added, no type is changed. So none of them is referenced by a foreign key.

create table if not exists projects (
    project_id text primary key,
    user_id    text not null
) with (fillfactor = 70);  -- the head moves in place

alter table projects
    add column if not exists workspace                  text,
    add column if not exists last_ai_session_id         text,
    add column if not exists last_ai_session_updated_at timestamptz,
    add column if not exists event_seq                  bigint not null default 0,
    add column if not exists fresh_next                 boolean not null default false,
    add column if not exists created_at                 timestamptz not null default now();

comment on column projects.workspace is
    'Absolute path of the workspace; null: BATON_WORKSPACES/<project_id>.';
comment on column projects.last_ai_session_id is
    'The head: the absolute latest agent session of the project, moved by every operation.';
comment on column projects.event_seq is
    'Number of the newest event. Raised in the transaction of the change an event tells.';
comment on column projects.fresh_next is
    'An operator asked that the next turn begin a fresh session.';

create table if not exists project_versions (
    id         bigint generated always as identity primary key,
    version_id text,
    project_id text not null
);

alter table project_versions
    add column if not exists version_id              text,
    add column if not exists status                  text not null default 'built',
    add column if not exists tree                    text,
    add column if not exists ai_session_id           text,
    add column if not exists ai_session_created_at   timestamptz,
    add column if not exists ai_session_last_used_at timestamptz,
    add column if not exists created_at              timestamptz not null default now();

comment on column project_versions.ai_session_id is
    'Latest agent session ID for this version; updated after each build, metadata and compact operation.';
comment on column project_versions.tree is
    'Git commit that holds the workspace as this version left it.';

create index if not exists idx_project_versions_session on project_versions (ai_session_id);
create index if not exists idx_project_versions_project
    on project_versions (project_id, version_id);

create table if not exists session_transitions (
    id             bigint generated always as identity primary key,
    project_id     text not null,
    version_id     text,
    old_session_id text,
    new_session_id text not null,
    source         text not null,
    created_at     timestamptz not null default now()
);

alter table session_transitions
    add column if not exists parent_session_id text,
    add column if not exists reason            text,
    add column if not exists job_id            uuid;

comment on table session_transitions is
    'Every move of a project''s head, one path per project: audit trail of agent sessions.';
comment on column session_transitions.old_session_id is 'The head that was replaced.';
comment on column session_transitions.parent_session_id is
    'The session that was forked; null: the new one began fresh.';

do $$
begin
    if not exists (select from pg_constraint where conname = 'session_transitions_source_known') then
        alter table session_transitions add constraint session_transitions_source_known
            check (source in ('build', 'update', 'metadata', 'compact', 'chat_plan',
                              'fallback', 'recovery', 'reset', 'fork', 'operator')) not valid;
    end if;
end $$;

create index if not exists idx_session_transitions_project on session_transitions (project_id, id);
create index if not exists idx_session_transitions_new_session on session_transitions (new_session_id);
create index if not exists idx_session_transitions_created on session_transitions (created_at);

-- Transitions older than 30 days, moved here by the clean-up: the audit is never lost.
create table session_transitions_archive (
    id                bigint primary key,
    project_id        text not null,
    version_id        text,
    old_session_id    text,
    new_session_id    text not null,
    parent_session_id text,
    source            text not null,
    reason            text,
    job_id            uuid,
    created_at        timestamptz not null,
    archived_at       timestamptz not null default now()
);
create index idx_session_transitions_archive_project on session_transitions_archive (project_id, id);

create table if not exists project_ai_session_metrics (
    session_id text primary key,
    project_id text not null
);

alter table project_ai_session_metrics
    add column if not exists user_id               text,
    add column if not exists version_id            text,
    add column if not exists parent_session_id     text,
    add column if not exists job_id                uuid,
    add column if not exists step                  text,
    add column if not exists status                text not null default 'active',
    add column if not exists created_at            timestamptz not null default now(),
    add column if not exists last_used_at          timestamptz not null default now(),
    add column if not exists input_tokens          bigint not null default 0,
    add column if not exists output_tokens         bigint not null default 0,
    add column if not exists cache_read_tokens     bigint not null default 0,
    add column if not exists cache_creation_tokens bigint not null default 0,
    add column if not exists context_tokens        bigint not null default 0,
    add column if not exists cost_usd              numeric not null default 0,
    add column if not exists raw_cost_usd          numeric,
    add column if not exists cost_estimated        boolean not null default false,
    add column if not exists duration_ms           bigint,
    add column if not exists num_turns             int,
    add column if not exists turns_since_start     int not null default 1,
    add column if not exists model                 text,
    add column if not exists cli_version           text,
    add column if not exists resumed               boolean not null default false,
    add column if not exists is_resumable          boolean not null default true,
    add column if not exists resume_failure_count  int not null default 0,
    add column if not exists stale_at              timestamptz,
    add column if not exists summary               text;

comment on table project_ai_session_metrics is
    'The session registry: whose each session is, what its turn used and cost, whether it can be resumed.';
comment on column project_ai_session_metrics.cost_usd is
    'Cost of this session''s own turn: the CLI''s cumulative figure less the parent''s.';
comment on column project_ai_session_metrics.raw_cost_usd is
    'The CLI''s figure as it was read: cumulative over resume and fork.';
comment on column project_ai_session_metrics.context_tokens is
    'Tokens of the conversation at the end of the turn: what the next turn begins with.';
comment on column project_ai_session_metrics.stale_at is
    'When the session was found too old to resume; it stays resumable for an operator.';

do $$
begin
    if not exists (select from pg_constraint where conname = 'session_status_known') then
        alter table project_ai_session_metrics add constraint session_status_known
            check (status in ('active', 'disconnected', 'expired')) not valid;
    end if;
end $$;

create index if not exists idx_ai_session_metrics_session on project_ai_session_metrics (session_id);
create index if not exists idx_ai_session_metrics_project
    on project_ai_session_metrics (project_id, created_at);
create index if not exists idx_ai_session_metrics_stale
    on project_ai_session_metrics (last_used_at) where stale_at is null;

create table if not exists project_chat_log_minimal (
    id         bigint generated always as identity primary key,
    project_id text not null
);

alter table project_chat_log_minimal
    add column if not exists session_id    text,
    add column if not exists ai_session_id text,
    add column if not exists role          text,
    add column if not exists content       text,
    add column if not exists job_id        uuid,
    add column if not exists created_at    timestamptz not null default now();

comment on column project_chat_log_minimal.session_id is
    'The session in which the message was said: for a chat, one of chat_plan_sessions.';
comment on column project_chat_log_minimal.ai_session_id is
    'The agent session whose transcript holds the message.';

create index if not exists idx_chat_log_project on project_chat_log_minimal (project_id, id);

create table if not exists chat_plan_sessions (
    session_id text primary key,
    project_id text not null
);

alter table chat_plan_sessions
    add column if not exists user_id    text,
    add column if not exists job_id     uuid,
    add column if not exists created_at timestamptz not null default now();

create index if not exists idx_chat_plan_sessions_project on chat_plan_sessions (project_id);

-- A row for each candidate that an attempt looked at, committed before the prompt is sent.
create table session_resume_attempts (
    id         bigint generated always as identity primary key,
    job_id     uuid not null,
    attempt    uuid not null,
    project_id text not null,
    session_id text,                             -- null: a fresh session
    step       text not null default '',
    outcome    text not null
        check (outcome in ('trying', 'resumed', 'fresh', 'rejected', 'failed', 'abandoned')),
    reason     text,
    at         timestamptz not null default now()
);
create index session_resume_attempts_job on session_resume_attempts (job_id);
create index session_resume_attempts_session on session_resume_attempts (session_id);
create index session_resume_attempts_at on session_resume_attempts (at);

comment on column session_resume_attempts.outcome is
    'trying: the prompt was sent on a fork of it; resumed or failed: how that ended; '
    'fresh: no session was resumed; rejected: not tried, reason says why; '
    'abandoned: the attempt died before it was known.';
