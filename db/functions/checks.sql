-- What a request may say of checks and repairs, and the check that a project has of its own.

-- The commands of a check, as a request or a project names them: a shell line, or several in order. An
-- empty list says that there is to be none.
create or replace function baton_check_commands(given jsonb, field text) returns void
language plpgsql as $$
#variable_conflict use_variable
declare
    lines constant jsonb := case jsonb_typeof(given) when 'array' then given
                                 else jsonb_build_array(given) end;
begin
    if jsonb_array_length(lines) > 10 or exists (
            select from jsonb_array_elements(lines) one
             where jsonb_typeof(one) <> 'string' or length(one #>> '{}') > 4000
                or one #>> '{}' ~ '^\s*$' or one #>> '{}' ~ '[\u0001-\u0008\u000b-\u001f\u007f]') then
        perform baton_refuse('bad_input', format(
            '%s must be a shell line, or up to 10 of them in order, each of 1 to 4000 printable characters.',
            field), field);
    end if;
end $$;

-- The options that are about checks; `kind` is that of the request.
create or replace function baton_check_checks(kind text, options jsonb) returns void
language plpgsql as $$
#variable_conflict use_variable
declare
    said text;
begin
    select o into said from unnest(array['check', 'check_tries', 'on_check_failed']) o
     where options ? o limit 1;
    if said is null then
        return;
    elsif kind not in ('build', 'update', 'repair') then
        perform baton_refuse('bad_input', format(
            '%s is for a build, an update or a repair: leave it out.', said), said);
    end if;
    if options ? 'check' then
        perform baton_check_commands(options -> 'check', 'check');
    end if;
    if options ? 'check_tries' and not baton_within(options -> 'check_tries', 0, 10, whole => true) then
        perform baton_refuse('bad_input', 'check_tries must be a whole number from 0 to 10.',
            'check_tries');
    end if;
    if coalesce(options ->> 'on_check_failed', 'keep') not in ('keep', 'rewind', 'ask') then
        perform baton_refuse('bad_input', 'on_check_failed must be keep, rewind or ask.',
            'on_check_failed');
    end if;
end $$;

-- A repair has an error in place of a prompt.
create or replace function baton_check_error(kind text, prompt text, error text) returns void
language plpgsql as $$
#variable_conflict use_variable
begin
    if kind is distinct from 'repair' then
        if error is not null then
            perform baton_refuse('bad_input',
                'error is for a repair: use the kind repair, or put it into the prompt.', 'error');
        end if;
    elsif prompt is not null then
        perform baton_refuse('bad_input', 'A repair has no prompt: put all of it into error.', 'prompt');
    elsif coalesce(error, '') ~ '^\s*$' then
        perform baton_refuse('bad_input', 'The error is empty: say what failed.', 'error');
    end if;
end $$;

-- The version that a repair is about, once it is known that the project is the user's.
create or replace function baton_check_about(project text, version text) returns void
language plpgsql as $$
#variable_conflict use_variable
begin
    if version is null then
        return;
    elsif not exists (
            select from project_versions v where v.project_id = project and v.version_id = version) then
        perform baton_refuse('bad_version', format(
            'The project has no version %s: name the one that the error is about, or none.',
            left(version, 60)), 'version');
    end if;
end $$;

-- The check of a project's own; null takes it away.
create or replace function baton_set_check(project text, commands jsonb) returns void
language plpgsql as $$
#variable_conflict use_variable
begin
    if commands is null then
        delete from project_checks c where c.project_id = project;
        return;
    end if;
    perform baton_check_commands(commands, 'check');
    insert into project_checks as c (project_id, commands)
    values (project, case jsonb_typeof(commands) when 'array' then commands
                          else jsonb_build_array(commands) end)
        on conflict (project_id) do update set commands = excluded.commands, set_at = now();
end $$;
