-- Which project a request is for: whose it is, whether it may be created, and its version.

-- Who asks for a job and who deletes its project take turns on a lock: the asker shares it
-- until its transaction ends. There are 128 of them, since a producer may ask for many projects
-- in one transaction, and locks are not without number.
create or replace function baton_deletion_lock(project text) returns bigint language sql immutable as $$
    select hashtextextended('baton deletes ' || (hashtextextended(project, 0) & 127), 0)
$$;

create or replace function baton_refuse_deleted(project text) returns void language plpgsql as $$
#variable_conflict use_variable
begin
    perform pg_advisory_xact_lock_shared(baton_deletion_lock(project));
    if exists (select from deletions d where d.ended_at is null and d.todo -> 'projects' ? project) then
        perform baton_refuse(format(
            'Project %s is being deleted: ask again when that is done.', project));
    end if;
end $$;

-- Another user's project, one that is being deleted, or one that this kind of job may not create:
-- refused.
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

create or replace function baton_check_template(project text, template text)
returns void language plpgsql as $$
#variable_conflict use_variable
begin
    if template is null then
        return;
    end if;
    if not exists (select from projects p where p.project_id = template
                      and p.user_id = '_template' and p.last_ai_session_id is not null) then
        perform baton_refuse(format(
            'There is no template %s: build a project of that name for the user _template first.',
            template));
    end if;
    if exists (select from projects p where p.project_id = project
                  and p.last_ai_session_id is not null) then
        perform baton_refuse('A template is for the first job of a project: leave it out.');
    end if;
end $$;

-- A build makes its version's row when it ends. Where the product's table has columns that
-- only the product can fill, that row must be there before: said now, not after the turn.
create or replace function baton_check_version(kind text, project text, version text)
returns void language plpgsql as $$
#variable_conflict use_variable
declare
    theirs text;
begin
    if kind not in ('build', 'update') or exists (
            select from project_versions v where v.project_id = project and v.version_id = version) then
        return;
    end if;
    select a.attname into theirs from pg_attribute a
     where a.attrelid = 'project_versions'::regclass and a.attnum > 0 and not a.attisdropped
       and a.attnotnull and not a.atthasdef and a.attidentity = ''
       and a.attname not in ('project_id', 'version_id', 'ai_session_id',
                             'ai_session_created_at', 'ai_session_last_used_at')
     limit 1;
    if theirs is not null then
        perform baton_refuse(format(
            'project_versions.%s is for your product to fill: insert the version first, and name it in the request.',
            theirs));
    end if;
end $$;

create or replace function baton_create_project(project text, user_id text, workspace text)
returns void language plpgsql as $$
#variable_conflict use_variable
declare
    owner text;
begin
    begin
        insert into projects (project_id, user_id, workspace)
        select project, user_id, workspace
         where not exists (select from projects p where p.project_id = project)
            on conflict do nothing;
    exception when integrity_constraint_violation or data_exception or insufficient_privilege then
        perform baton_refuse(format(
            'Project %s is unknown and cannot be created here (%s): create it in your product first.',
            project, sqlerrm));
    end;
    select p.user_id into owner from projects p where p.project_id = project;
    if owner is distinct from user_id then
        perform baton_refuse('This project belongs to another user.');
    end if;
end $$;
