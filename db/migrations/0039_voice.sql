-- Voice: sessions with a realtime model, what they used of their account's credit.
create table if not exists sessions (
    account_id text not null,
    session_id text not null,
    type       text not null default 'realtime',
    data       jsonb,
    items      jsonb not null default '[]',
    updated_at timestamptz not null default now(),
    primary key (account_id, session_id)
);
comment on table sessions is 'Voice sessions: what is replayed when the provider has closed or died.';
comment on column sessions.data is
    'The session.update to replay, as the provider accepted it last; null: it never accepted one.';
comment on column sessions.items is 'The conversation, as items to create again, the oldest first.';

create table if not exists voice_charges (
    id         uuid primary key,
    account_id text not null,
    session_id text not null,
    tokens     bigint not null check (tokens >= 0),
    at         timestamptz not null default now()
);
comment on table voice_charges is 'What each response used. A charge that is tried again is made once.';
create index if not exists voice_charges_account on voice_charges (account_id, at);
create index if not exists voice_charges_at on voice_charges (at);
create index if not exists sessions_seen on sessions (updated_at);

alter table accounts alter column token_remaining drop not null,
                     alter column token_remaining drop default;
comment on column accounts.token_remaining is
    'Tokens that voice may still use before topup_remaining is used; null: they are not limited.';

-- Practice calls: a page, a telephone and a voice session that belong together for one call.
create table if not exists calls (
    call            text primary key,
    account_id      text not null,
    status          text not null default 'created'
                    check (status in ('created', 'waiting', 'associated', 'active', 'ended')),
    reason          text,
    config          jsonb,
    config_version  int not null default 0,
    applied_version int not null default 0,
    stream_sid      text,
    event_seq       bigint not null default 0,
    created_at      timestamptz not null default now(),
    seen_at         timestamptz not null default now(),
    ended_at        timestamptz
);
comment on table calls is 'Practice calls. config_version 0: no configuration came yet.';
create index if not exists calls_open on calls (account_id) where status <> 'ended';
create index if not exists calls_seen on calls (seen_at) where status <> 'ended';
create index if not exists calls_ended on calls (ended_at) where status = 'ended';

create table if not exists call_events (
    call text not null,
    seq  bigint not null,
    type text not null,
    body jsonb not null default '{}',
    at   timestamptz not null default now(),
    primary key (call, seq)
);
comment on table call_events is 'What happened in a call, numbered without a gap, for its page.';
