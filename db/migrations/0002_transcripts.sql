-- Transcripts of the agent's sessions, as the SDK's SessionStore sees them.
--
-- A fork repeats the whole history of its parent, so a body is kept once per project
-- and a session is a list of references: a fork of 2 000 entries adds one row here.
-- No table refers to another or to any table outside: rows may be deleted at will,
-- and what is then missing shows when the session is loaded.

create table transcript_entries (
    id         bigint generated always as identity primary key,
    project_id text   not null,
    digest     bytea  not null,
    uuid       uuid,
    body       bytea  not null,
    constraint transcript_entries_once unique (project_id, digest),
    constraint transcript_entries_digest_length check (octet_length(digest) = 16)
);
-- The bodies are compressed already.
alter table transcript_entries alter column body set storage external;
create index transcript_entries_uuid on transcript_entries (project_id, uuid)
    where uuid is not null;

comment on table transcript_entries is
    'The bodies of transcript entries, each once per project, whichever sessions hold it.';
comment on column transcript_entries.digest is
    'BLAKE2b-128 of the body before compression, its top-level keys sorted.';
comment on column transcript_entries.uuid is
    'The entry''s own uuid (a digest of it when it is no uuid), null when it has none: an '
    'entry with one goes into a session once.';
comment on column transcript_entries.body is
    'The entry as JSON without the fields that a fork changes, zlib-compressed. Not jsonb: '
    'entries may hold NUL characters and lone surrogates, and key order reaches the model.';

create table transcript_batches (
    id         bigint generated always as identity primary key,
    project_id text        not null,
    session_id text        not null,
    subpath    text        not null default '',
    starts     bigint[]    not null,
    runs       integer[]   not null,
    overlay    bytea       not null,
    entries    integer     not null,
    bytes      bigint      not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint transcript_batches_runs check (cardinality(starts) = cardinality(runs)),
    constraint transcript_batches_not_empty check (entries > 0)
);
create index transcript_batches_session
    on transcript_batches (project_id, session_id, subpath, id);

comment on table transcript_batches is
    'One row an append, in order of id: which entries it added to the session, in order.';
comment on column transcript_batches.starts is
    'Ids in transcript_entries at which runs of consecutive ids begin, in order.';
comment on column transcript_batches.runs is
    'How many consecutive ids each run has.';
comment on column transcript_batches.overlay is
    'The fields that a fork changes: zlib-compressed JSON, name -> [[count, value], ...] over '
    'the batch''s entries; [count] alone where the field is absent.';
comment on column transcript_batches.bytes is
    'Size of the bodies before compression and sharing.';

create table transcript_sessions (
    project_id  text        not null,
    session_id  text        not null,
    subpath     text        not null default '',
    entries     integer     not null,
    bytes       bigint      not null,
    last_batch  bigint      not null,
    last_digest bytea       not null,
    summary     json,
    created_at  timestamptz not null default clock_timestamp(),
    updated_at  timestamptz not null default clock_timestamp(),
    primary key (project_id, session_id, subpath)
);

comment on table transcript_sessions is
    'One row a transcript: a session''s own (subpath empty) and those of its sub-agents.';
comment on column transcript_sessions.entries is
    'How many entries the transcript has. A load that finds another number says so.';
comment on column transcript_sessions.bytes is
    'Size of the bodies before compression and sharing.';
comment on column transcript_sessions.last_batch is
    'The newest append, in transcript_batches: with it the row''s fingerprint changes.';
comment on column transcript_sessions.last_digest is
    'Digest of the newest append as it came: an append tried again is recognised by it.';
comment on column transcript_sessions.summary is
    'The SDK''s own running summary, kept as it is; null for sub-agents. Not jsonb: see body.';

-- When something was last taken away, so that a session once found sound need not be
-- read again to know that it still is. Appends write nothing here.
create table transcript_removals (
    project_id text primary key,
    xact       xid8 not null
);

comment on table transcript_removals is
    'The last transaction that removed or changed entries or batches of a project; the '
    'project '''' stands for all of them (a truncate).';

create function transcript_note_removal() returns trigger language plpgsql as $$
begin
    if tg_op = 'TRUNCATE' then
        insert into transcript_removals values ('', pg_current_xact_id())
        on conflict (project_id) do update set xact = excluded.xact;
    else
        insert into transcript_removals
        select project_id, pg_current_xact_id()
          from gone group by project_id order by project_id
        on conflict (project_id) do update set xact = excluded.xact;
    end if;
    return null;
end $$;

create trigger transcript_entries_deleted after delete on transcript_entries
    referencing old table as gone
    for each statement execute function transcript_note_removal();
create trigger transcript_entries_changed after update on transcript_entries
    referencing old table as gone
    for each statement execute function transcript_note_removal();
create trigger transcript_entries_truncated after truncate on transcript_entries
    for each statement execute function transcript_note_removal();
create trigger transcript_batches_deleted after delete on transcript_batches
    referencing old table as gone
    for each statement execute function transcript_note_removal();
create trigger transcript_batches_changed after update on transcript_batches
    referencing old table as gone
    for each statement execute function transcript_note_removal();
create trigger transcript_batches_truncated after truncate on transcript_batches
    for each statement execute function transcript_note_removal();
