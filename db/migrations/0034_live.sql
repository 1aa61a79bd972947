-- The live side: whose key it is, whose project, who is connected.
create table if not exists accounts (
    id              text primary key,
    token_remaining bigint not null default 0,
    topup_remaining bigint not null default 0,
    created_at      timestamptz not null default now()
);
comment on table accounts is 'Who asks over HTTP: a producer with keys of its own.';

create table if not exists api_keys (
    id           bigint generated always as identity primary key,
    account_id   text not null,
    key_hash     text not null,
    name         text not null default '',
    scopes       text[] not null default '{jobs}',
    created_at   timestamptz not null default now(),
    last_used_at timestamptz,
    revoked_at   timestamptz
);
comment on column api_keys.key_hash is 'SHA-256 in hex; the key itself is shown once and never kept.';
create unique index if not exists api_keys_hash on api_keys (key_hash);
create index if not exists api_keys_account on api_keys (account_id);

create table if not exists account_projects (
    project_id text primary key,
    account_id text not null,
    created_at timestamptz not null default now()
);
comment on table account_projects is
    'Whose a project is: the account whose key first used it. A project without a row is nobody''s yet.';
create index if not exists account_projects_account on account_projects (account_id);

create table if not exists live_connections (
    conn           uuid primary key,
    project_id     text not null,
    user_id        text not null,
    tab            text,
    gateway        text not null,
    status         text not null default 'active'
                   check (status in ('active', 'disconnected', 'expired')),
    created_at     timestamptz not null default now(),
    last_active_at timestamptz not null default now()
);
comment on table live_connections is 'Browsers and phones that are, or lately were, connected to a gateway.';
create index if not exists live_connections_user on live_connections (user_id) where status = 'active';
create index if not exists live_connections_seen on live_connections (last_active_at);
create index if not exists live_connections_project on live_connections (project_id);

create table if not exists signed_out (
    id    text primary key,
    until timestamptz not null
);
comment on table signed_out is 'Tickets and their cookies that were given back before their time.';
