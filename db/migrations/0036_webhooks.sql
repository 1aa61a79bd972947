-- Webhooks: whom to tell when a chain has ended, and an outbox of what is still to be told.
alter table jobs add column if not exists callback_url text;
comment on column jobs.callback_url is
    'Of a request: the address that is told when its chain has ended. Null: none, or it follows in a chain.';

create table if not exists webhooks (
    chain_id   uuid primary key,
    project_id text not null,
    user_id    text not null,
    url        text not null,
    host       text not null,
    state      text not null default 'waiting'
               check (state in ('waiting', 'delivered', 'given_up')),
    since      timestamptz not null default now(),
    try_at     timestamptz not null default now(),
    held_until timestamptz,
    tries      int not null default 0,
    ended_at   timestamptz,
    status     int,
    error      text
);
comment on table webhooks is
    'The outbox of webhooks: a row a chain that has ended and whose request named an address.';
comment on column webhooks.since is 'Since when it is tried: a day later it is given up.';
comment on column webhooks.held_until is
    'Somebody is sending it; after this they have died, and it is anybody''s again.';
comment on column webhooks.status is 'What was answered last, as HTTP says it; null: nothing.';
create index if not exists webhooks_due on webhooks (host, try_at) where state = 'waiting';
create index if not exists webhooks_undelivered on webhooks (since desc) where state <> 'delivered';
create index if not exists webhooks_project on webhooks (project_id);
create index if not exists webhooks_user on webhooks (user_id);
