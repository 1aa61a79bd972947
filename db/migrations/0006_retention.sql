-- What is kept and what goes: the archive by months, and deletions with a receipt.
-- was: 87b0633a64ffbf2e21c48077e7d5e1e06f3022a97e0c1d7d8aa86f514bb86a4b

do $$
begin
    if to_regclass(format('%I.deletions', current_schema())) is not null then
        raise exception 'There is a table deletions already, and Baton has one of that name: rename it, or give Baton a schema of its own (search_path)';
    end if;
end $$;

-- Sessions whose transcripts are kept, and for what. Whatever comes to name a session for
-- good adds itself here: the clean-up asks nobody else.
create view sessions_kept as
select project_id, last_ai_session_id as session_id, 'head' as kept_as
  from projects where last_ai_session_id is not null
union all
select project_id, ai_session_id, 'version'
  from project_versions where ai_session_id is not null;

-- The archive, a table a month (UTC) of when the head moved: an operator may detach one.
create table session_transitions_months (
    id                bigint not null,
    project_id        text not null,
    version_id        text,
    old_session_id    text,
    new_session_id    text not null,
    parent_session_id text,
    source            text not null,
    reason            text,
    job_id            uuid,
    created_at        timestamptz not null,
    archived_at       timestamptz not null default now(),
    primary key (id, created_at)
) partition by range (created_at);

alter table session_transitions_archive rename to session_transitions_to_move;
alter table session_transitions_months rename to session_transitions_archive;

-- Until all is moved the old table counts too.
create or replace view session_chain as
select id, project_id, version_id, old_session_id, new_session_id, parent_session_id,
       source, reason, job_id, created_at
  from session_transitions
union all
select id, project_id, version_id, old_session_id, new_session_id, parent_session_id,
       source, reason, job_id, created_at
  from session_transitions_archive
union all
select id, project_id, version_id, old_session_id, new_session_id, parent_session_id,
       source, reason, job_id, created_at
  from session_transitions_to_move;

alter index idx_session_transitions_archive_project rename to idx_session_transitions_to_move;
create index idx_session_transitions_archive_project on session_transitions_archive (project_id, id);
create index idx_session_transitions_archive_new_session
    on session_transitions_archive (new_session_id);

comment on table session_transitions_archive is
    'Transitions past their time, a partition a month of created_at (UTC): the audit is never lost.';

-- The month's table is made beside the archive and then attached: readers go on meanwhile.
-- One that was detached keeps its name, so a row that comes late goes into another.
create function baton_archive_month(at timestamptz) returns void language plpgsql as $$
#variable_conflict use_variable
declare
    month   constant timestamptz := date_trunc('month', at, 'UTC');
    upto    constant timestamptz := (month at time zone 'UTC' + interval '1 month') at time zone 'UTC';
    base    constant text := 'session_transitions_archive_' || to_char(month at time zone 'UTC', 'YYYY_MM');
    name    text := base;
    n       int := 1;
    taken   pg_class;
begin
    perform pg_advisory_xact_lock(hashtextextended('baton archive', 0));
    loop
        select * into taken from pg_class c
         where c.relname = name and c.relnamespace = current_schema()::regnamespace;
        exit when taken.oid is null;
        if taken.relispartition then
            return;
        end if;
        n := n + 1;
        name := base || '_' || n;
    end loop;
    execute format('create table %I (like session_transitions_archive including defaults)', name);
    execute format('alter table session_transitions_archive attach partition %I for values from (%L) to (%L)',
                   name, month, upto);
end $$;

-- As the owner of the tables, whoever runs the clean-up, and on the tables beside it.
do $$
begin
    execute format('alter function baton_archive_month(timestamptz) security definer set search_path to %I, pg_temp',
                   current_schema());
end $$;

-- Receipts of deletions: how much of what went, and when; of whom only as a digest.
create table deletions (
    id       uuid primary key default gen_random_uuid(),
    what     text not null check (what in ('project', 'user')),
    digest   text not null,
    host     text not null,
    began_at timestamptz not null default now(),
    ended_at timestamptz,
    rows     jsonb not null default '{}',
    files    bigint not null default 0,
    keys     bigint not null default 0,
    todo     jsonb,
    constraint deletions_nothing_left check ((ended_at is null) = (todo is not null))
);
create index deletions_open on deletions (began_at) where ended_at is null;

comment on table deletions is
    'One row a `baton delete`: how much of what went. It names nobody once it has ended.';
comment on column deletions.digest is
    'SHA-256 in hex of "<id of this row> <what> <id of the project or user>".';
comment on column deletions.rows is 'Rows that were deleted, by table.';
comment on column deletions.todo is
    'Until it has ended: of whom, and what is still to be removed. Its projects take no jobs.';

-- Who asks for a job and who deletes its project take turns on a lock: the asker shares it
-- until its transaction ends. There are 128 of them, since a producer may ask for many projects
-- in one transaction, and locks are not without number.
create function baton_deletion_lock(project text) returns bigint language sql immutable as $$
    select hashtextextended('baton deletes ' || (hashtextextended(project, 0) & 127), 0)
$$;

create function baton_refuse_deleted(project text) returns void language plpgsql as $$
#variable_conflict use_variable
begin
    perform pg_advisory_xact_lock_shared(baton_deletion_lock(project));
    if exists (select from deletions d where d.ended_at is null and d.todo -> 'projects' ? project) then
        perform baton_refuse(format(
            'Project %s is being deleted: ask again when that is done.', project));
    end if;
end $$;

-- As in 0004, and a project that is being deleted is refused first.
create or replace function baton_check_project(kind text, project text, user_id text, workspace text)
returns void language plpgsql as $$
#variable_conflict use_variable
declare
    known projects;
begin
    perform baton_refuse_deleted(project);
    select * into known from projects p where p.project_id = project;
    if found and known.user_id is distinct from user_id then
        perform baton_refuse('This project belongs to another user.');
    elsif found and known.workspace is distinct from coalesce(workspace, known.workspace) then
        perform baton_refuse('The project has a workspace of its own: leave the workspace out.');
    elsif found then
        return;
    elsif kind not in ('build', 'chat_plan') then
        perform baton_refuse(format(
            'Project %s is unknown: begin it with a build or a chat-plan.', project));
    end if;
    if workspace is not null and exists (
            select from projects p
             where starts_with(p.workspace || '/', workspace || '/')
                or starts_with(workspace || '/', p.workspace || '/')) then
        perform baton_refuse('This workspace belongs to another project: choose another directory.');
    end if;
end $$;

-- step: in a transaction
select baton_archive_month(month)
  from (select distinct date_trunc('month', created_at, 'UTC') as month
          from session_transitions_to_move) months;

-- step: in batches of 1000 rows of session_transitions_to_move by id
with moved as (
    delete from session_transitions_to_move where id between :first and :last returning *
)
insert into session_transitions_archive
       (id, project_id, version_id, old_session_id, new_session_id, parent_session_id, source,
        reason, job_id, created_at, archived_at)
select id, project_id, version_id, old_session_id, new_session_id, parent_session_id, source,
       reason, job_id, created_at, archived_at
  from moved;

-- step: in a transaction
create or replace view session_chain as
select id, project_id, version_id, old_session_id, new_session_id, parent_session_id,
       source, reason, job_id, created_at
  from session_transitions
union all
select id, project_id, version_id, old_session_id, new_session_id, parent_session_id,
       source, reason, job_id, created_at
  from session_transitions_archive;
drop table session_transitions_to_move;
