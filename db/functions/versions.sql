-- Versions: what the product's own tables would refuse at the end of a build is said before it, as far
-- as it can be known. The rest is tried out before the first turn (db/sessions/rehearsal.py).

drop function if exists baton_unique(text);

-- Where the product's tables hold shorter ids than these. A build without a version makes one whose
-- id is that of its job.
create or replace function baton_check_lengths(kind text, project text, user_id text, version text)
returns void language plpgsql as $$
#variable_conflict use_variable
declare
    longest  constant int := greatest(length(project), length(user_id), length(version),
                                      case when version is null then 36 end);
    found_at record;
begin
    if not exists (  -- most products' are long enough: one look tells
            select from pg_attribute a
             where a.attrelid in ('projects'::regclass, 'project_versions'::regclass, 'session_transitions'::regclass,
                                  'chat_plan_sessions'::regclass, 'project_ai_session_metrics'::regclass,
                                  'project_chat_log_minimal'::regclass)
               and a.attname in ('project_id', 'user_id', 'version_id')
               and a.atttypid = 'varchar'::regtype and a.atttypmod > 4 and a.atttypmod < longest + 4) then
        return;
    end if;
    select a.attrelid::regclass::text as table_name, a.attname, a.atttypmod - 4 as most, v.what, v.field
      into found_at
      from (values ('project_id', 'The project id', project, 'project'),
                   ('user_id', 'The user id', user_id, 'user'),
                   ('version_id', 'The version id',
                    coalesce(version, case when kind in ('build', 'update') then repeat('-', 36) end),
                    'version')) v (attname, what, value, field)
      join unnest(array['projects', 'project_versions', 'session_transitions', 'chat_plan_sessions',
                        'project_ai_session_metrics', 'project_chat_log_minimal']::regclass[]) t on true
      join pg_attribute a on a.attrelid = t and a.attname = v.attname
     where a.atttypid = 'varchar'::regtype and a.atttypmod > 4 and length(v.value) > a.atttypmod - 4
     limit 1;
    if found then
        perform baton_refuse(case found_at.field when 'version' then 'bad_version' else 'bad_input' end,
            format('%s is longer than your product''s %s.%s can hold (%s characters): %s.',
                found_at.what, found_at.table_name, found_at.attname, found_at.most,
                case when found_at.field = 'version' and version is null
                     then 'name a shorter version in the request' else 'shorten it' end),
            found_at.field);
    end if;
end $$;

-- A build makes its version's row when it ends. Where the product's table has columns that
-- only the product can fill, that row must be there before; where it takes an id of a version only
-- once, it must not be another project's, nor that of a build which another project waits for.
create or replace function baton_check_version(kind text, project text, version text)
returns void language plpgsql as $$
#variable_conflict use_variable
declare
    theirs        text;
    one_a_project boolean;  -- the table takes each project only once
    once          boolean;  -- and each version's id
begin
    if kind not in ('build', 'update') then
        return;
    elsif version is not null then
        if exists (select from project_versions v where v.project_id = project and v.version_id = version) then
            return;
        end if;
    end if;
    select min(a.attname) filter (where a.attnotnull and not a.atthasdef and a.attidentity = ''
                                    and a.attname not in ('project_id', 'version_id', 'ai_session_id',
                                        'ai_session_created_at', 'ai_session_last_used_at')),
           bool_or(a.attname = 'project_id' and a.attnum = any(x.alone)),
           bool_or(a.attname = 'version_id' and a.attnum = any(x.alone))
      into theirs, one_a_project, once
      from pg_attribute a cross join (
           select array_agg(i.indkey[0]) as alone from pg_index i
            where i.indrelid = 'project_versions'::regclass and i.indisunique and i.indnkeyatts = 1
              and i.indpred is null) x
     where a.attrelid = 'project_versions'::regclass and a.attnum > 0 and not a.attisdropped;
    if theirs is not null then
        perform baton_refuse('bad_version', format(
            'project_versions.%s is for your product to fill: insert the version first, and name it in the request.',
            theirs), 'version');
    elsif one_a_project then
        if exists (select from project_versions v where v.project_id = project) then
            perform baton_refuse('bad_version',
                'Your product''s project_versions has one row a project: name that version in the request.',
                'version');
        end if;
    end if;
    if version is not null and once then
        perform pg_advisory_xact_lock(hashtextextended('baton version ' || version, 0));
        if exists (select from project_versions v
                    where v.version_id = version and v.project_id <> project)
           or exists (select from jobs j where j.version_id = version and j.project_id <> project
                         and j.kind = 'build' and j.finished_at is null) then
            perform baton_refuse('bad_version', format(
                'The version id %s is not free, and your product''s project_versions takes it only once: name another.',
                version), 'version');
        end if;
    end if;
end $$;
