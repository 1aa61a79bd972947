-- Which project a request is for: whose it is, and whether it may be created.
--
-- A project of another user is answered as one that is not there, whoever asks and by which door:
-- nobody learns whose an id is, nor whether it is anybody's.

drop function if exists baton_check_project(text, text, text, text);

-- Who asks for a job and who deletes its project take turns on a lock: the asker shares it
-- until its transaction ends. There are 128 of them, since a producer may ask for many projects
-- in one transaction, and locks are not without number.
create or replace function baton_deletion_lock(project text) returns bigint language sql immutable as $$
    select hashtextextended('baton deletes ' || (hashtextextended(project, 0) & 127)::text, 0)
$$;

create or replace function baton_refuse_deleted(project text) returns void language plpgsql as $$
#variable_conflict use_variable
begin
    perform pg_advisory_xact_lock_shared(baton_deletion_lock(project));
    if exists (select from deletions d where d.ended_at is null and d.todo -> 'projects' ? project) then
        perform baton_refuse('being_deleted', format(
            'Project %s is being deleted: ask again when that is done.', project), 'project');
    end if;
end $$;

create or replace function baton_refuse_unavailable(project text) returns void language plpgsql as $$
begin
    perform baton_refuse('project_unavailable', format(
        'Project %s cannot be had here: choose another id.', project), 'project');
end $$;

-- A project that this kind of job may not create, another user's, or one that is being deleted:
-- refused. So is a place that a new one may not have. What is found is held until the asker's
-- transaction ends: whether it is a new one, and its place as it is to be stored.
create or replace function baton_check_project(
    kind text, project text, user_id text, workspace text, out is_new boolean, out place text
) returns record language plpgsql as $$
#variable_conflict use_variable
declare
    known    projects;
    owners   jsonb;
    going    boolean;
    theirs   boolean;
begin
    perform pg_advisory_xact_lock_shared(baton_deletion_lock(project));
    select d.todo -> 'owners' into owners from deletions d
     where d.ended_at is null and d.todo -> 'projects' ? project limit 1;
    going := found;
    select * into known from projects p where p.project_id = project;
    is_new := not found;
    theirs := case when is_new then owners ->> project <> user_id
                   else known.user_id is distinct from user_id end;
    if kind not in ('build', 'chat_plan') and (theirs or is_new and not going) then
        perform baton_refuse('unknown_project', format(
            'Project %s is unknown: begin it with a build or a chat-plan.', project), 'project');
    elsif theirs then
        perform baton_refuse_unavailable(project);
    elsif going then
        perform baton_refuse_deleted(project);
    elsif is_new then
        place := baton_new_place(project, workspace);
    elsif workspace is not null then
        perform baton_keep_place(known, workspace);
    end if;
end $$;

-- Make the project, if nobody has made it just now; refused where that is another user.
create or replace function baton_insert_project(project text, user_id text, place text)
returns void language plpgsql as $$
#variable_conflict use_variable
declare
    owner text;
begin
    insert into projects as p (project_id, user_id, workspace) values (project, user_id, place)
    on conflict do nothing returning p.user_id into owner;
    if not found then
        select p.user_id into owner from projects p where p.project_id = project;
    end if;
    if owner is distinct from user_id then
        perform baton_refuse_unavailable(project);
    end if;
exception when integrity_constraint_violation or data_exception or insufficient_privilege then
    perform baton_refuse('unknown_project', format(
        'Project %s is unknown and cannot be created here (%s): create it in your product first.',
        project, sqlerrm), 'project');
end $$;

create or replace function baton_create_project(project text, user_id text, workspace text)
returns void language plpgsql as $$
#variable_conflict use_variable
begin
    if exists (select from projects p where p.project_id = project and p.user_id = user_id) then
        return;
    elsif exists (select from projects p where p.project_id = project) then
        perform baton_refuse_unavailable(project);
    end if;
    perform baton_insert_project(project, user_id, baton_new_place(project, workspace));
end $$;

create or replace function baton_check_template(project text, template text)
returns void language plpgsql as $$
#variable_conflict use_variable
begin
    if template is null then
        return;
    end if;
    if not exists (select from projects p where p.project_id = template
                      and p.user_id = '_template' and p.last_ai_session_id is not null) then
        perform baton_refuse('bad_template', format(
            'There is no template %s: an operator builds it first, for the user _template.', template),
            'template');
    end if;
    if exists (select from projects p where p.project_id = project
                  and p.last_ai_session_id is not null) then
        perform baton_refuse('bad_template',
            'A template is for the first job of a project: leave it out.', 'template');
    end if;
end $$;

-- A transaction that looks at the tables as they were when it began cannot tell whether the lane is
-- busy, nor whose a directory is: such requests are refused. Others are answered by Postgres: two
-- with one key, or a project that was deleted meanwhile, are a serialization failure.
create or replace function baton_check_isolation(project text, busy text, workspace text)
returns void language plpgsql as $$
#variable_conflict use_variable
begin
    if current_setting('transaction_isolation') not in ('repeatable read', 'serializable') then
        return;
    end if;
    if busy <> 'enqueue' or workspace is not null then
        perform baton_refuse('wrong_isolation',
            'reject, replace, interrupt and a workspace need a transaction that sees what others commit: begin it as READ COMMITTED.',
            case when busy <> 'enqueue' then 'busy' else 'workspace' end);
    end if;
    perform from projects p where p.project_id = project for key share;
end $$;
