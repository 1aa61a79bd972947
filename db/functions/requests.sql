-- What a request may say, looked at before anything is written; and how one is refused.
--
-- A refusal raises an SQLSTATE of class BA with one sentence for people. The SQLSTATE says which
-- rule it was, the error's column which field of the request, and the detail of too_many_requests
-- when to ask again. docs/jobs.md has the table.

drop function if exists baton_refuse(text);
drop function if exists baton_check_name(text, text);
drop function if exists baton_check_user(text);
drop function if exists baton_check_options(jsonb);
drop function if exists baton_check_request(text, text, int);
drop function if exists baton_check_workspace(jsonb);
drop function if exists baton_number(jsonb, text, text);

create or replace function baton_refusals() returns table (code text, sqlstate text)
language sql immutable as $$
    values ('bad_input', 'BA001'), ('prompt_too_long', 'BA002'), ('busy', 'BA003'),
           ('key_conflict', 'BA004'), ('unknown_project', 'BA005'),
           ('project_unavailable', 'BA006'), ('being_deleted', 'BA007'),
           ('too_many_requests', 'BA008'), ('bad_workspace', 'BA009'), ('bad_template', 'BA010'),
           ('bad_branch', 'BA011'), ('bad_version', 'BA012'), ('wrong_isolation', 'BA013'),
           ('bad_callback', 'BA014'), ('wrong_user', 'BA015')
$$;

create or replace function baton_refuse(
    code text, sentence text, field text default '', again_at timestamptz default null
) returns void language plpgsql as $$
#variable_conflict use_variable
declare
    state constant text := (select r.sqlstate from baton_refusals() r where r.code = code);
begin
    if again_at is null then
        raise exception using errcode = state, message = sentence, column = field;
    end if;
    raise exception using errcode = state, message = sentence, column = field,
        detail = to_char(again_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
end $$;

-- A setting that the ledger holds; null: it was never told.
create or replace function baton_setting(name text) returns jsonb language plpgsql stable as $$
#variable_conflict use_variable
begin
    return (select s.value from baton_settings s where s.name = name);
end $$;

-- How many jobs of one user may be at work: as the newest worker said; else what the asker goes by.
create or replace function baton_user_slots(own int) returns int language plpgsql stable as $$
begin
    return coalesce((baton_setting('user_slots') #>> '{}')::int, own);
end $$;

create or replace function baton_check_name(what text, value text, field text default '')
returns void language plpgsql as $$
begin
    if value is null or length(value) > 200 or value !~ '^[A-Za-z0-9_][A-Za-z0-9._:@+=-]*$' then
        perform baton_refuse('bad_input', format(
            '%s must be 1 to 200 letters, digits or . _ : @ + = - and begin with a letter, a digit or _.',
            what), field);
    end if;
end $$;

-- A user's id names no file and no key, so what identity providers put into it is let through. Those
-- that begin with _ are Baton's own, such as that of templates: an operator may ask as one, and who
-- had one before goes on with what is theirs.
create or replace function baton_check_user(value text, operator boolean default false)
returns void language plpgsql as $$
begin
    if value is null or length(value) > 200 or value !~ '^[A-Za-z0-9_][A-Za-z0-9._:@+=|/-]*$' then
        perform baton_refuse('bad_input',
            'The user id must be 1 to 200 letters, digits or . _ : @ + = | / - and begin with a letter or a digit.',
            'user');
    elsif starts_with(value, '_') and not coalesce(operator, false) then
        perform baton_refuse('bad_input',
            'User ids that begin with _ are reserved: give this user another id; an operator says that it is one.',
            'user');
    end if;
end $$;

-- A path as it is written: every host must read it alike, and make a directory of it.
create or replace function baton_check_path(value text) returns void language plpgsql as $$
begin
    if value !~ '^(/[^/[:cntrl:]]+)+$' or value ~ '(^|/)[.][.]?(/|$)' or length(value) > 1000
            or exists (select from unnest(string_to_array(value, '/')) part
                        where octet_length(part) > 255) then
        perform baton_refuse('bad_workspace',
            'The workspace must be an absolute path without . or .. in it.', 'workspace');
    end if;
end $$;

-- What is asked for beside the fields of every request. `named` was given by name, `options` as
-- older clients do.
create or replace function baton_options(options jsonb, named jsonb) returns jsonb
language plpgsql as $$
declare
    wrong text;
begin
    options := coalesce(options, '{}');
    named := jsonb_strip_nulls(named);
    if jsonb_typeof(options) <> 'object' then
        perform baton_refuse('bad_input', 'options must be a JSON object.', 'options');
    end if;
    if options = '{}' and named = '{}' then
        return options;
    end if;
    select o into wrong from jsonb_object_keys(options) as o where named ? o limit 1;
    if found then
        perform baton_refuse('bad_input', format('%s is given twice: leave it out of the options.', wrong),
            wrong);
    end if;
    options := options || named;
    if octet_length(options::text) > 16384 then
        perform baton_refuse('bad_input',
            'The options are larger than 16 kB: put long text into the prompt.', 'options');
    end if;
    select o into wrong from jsonb_object_keys(options) as o
     where o not in ('model', 'max_turns', 'budget', 'workspace', 'on_lost', 'branch_from',
                     'template', 'callback_url', 'check', 'check_tries', 'on_check_failed', 'race', 'race_by',
                     'race_models', 'race_seconds') limit 1;
    if found then
        perform baton_refuse('bad_input', format(
            'Unknown option %s: use model, max_turns, budget, workspace, on_lost, branch_from, template, callback_url, check, check_tries, on_check_failed, race, race_by, race_models or race_seconds.',
            left(wrong, 60)), 'options');
    end if;
    perform baton_check_options(options);
    return options;
end $$;

create or replace function baton_check_options(options jsonb) returns void language plpgsql as $$
begin
    if options ? 'max_turns' and not baton_within(options -> 'max_turns', 1, 100000, whole => true) then
        perform baton_refuse('bad_input', 'max_turns must be a whole number from 1 to 100000.',
            'max_turns');
    end if;
    if options ? 'budget' and not baton_within(options -> 'budget', 0.000001, 1000000) then
        perform baton_refuse('bad_input', 'budget must be an amount in USD from 0.000001 to 1000000.',
            'budget');
    end if;
    if options ? 'model' and (jsonb_typeof(options -> 'model') <> 'string'
            or options ->> 'model' !~ '^[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,199}$') then
        perform baton_refuse('bad_input', 'model must be the name of a model, such as sonnet.', 'model');
    end if;
    if coalesce(options ->> 'on_lost', 'fresh') not in ('fresh', 'ask') then
        perform baton_refuse('bad_input', 'on_lost must be fresh or ask.', 'on_lost');
    end if;
    if options ? 'workspace' then
        if jsonb_typeof(options -> 'workspace') <> 'string' then
            perform baton_check_path('');
        end if;
        perform baton_check_path(options ->> 'workspace');
    end if;
    if options ? 'template' then
        perform baton_check_name('The name of the template', options ->> 'template', 'template');
    end if;
    if options ? 'callback_url' then
        perform baton_check_callback(options -> 'callback_url');
    end if;
    if options ? 'branch_from' then
        perform baton_check_session('branch_from', options ->> 'branch_from', 'branch_from');
        if options ? 'template' then
            perform baton_refuse('bad_template',
                'A branch begins from a session of its project: leave the template out.', 'template');
        end if;
    end if;
end $$;

-- Whether a value of JSON is a number in this range. No fraction if it is to be whole.
create or replace function baton_within(
    value jsonb, lowest numeric, highest numeric, whole boolean default false
) returns boolean language sql immutable as $$
    select jsonb_typeof(value) = 'number' and (value #>> '{}')::numeric between lowest and highest
       and (not whole or (value #>> '{}')::numeric = trunc((value #>> '{}')::numeric))
$$;

create or replace function baton_check_session(what text, value text, field text)
returns void language plpgsql as $$
begin
    if value !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then
        perform baton_refuse('bad_input',
            format('%s is not a UUID: name a session that Baton gave, or none.', what), field);
    end if;
end $$;

-- When the job may run: at a time that every program can read.
create or replace function baton_check_times(run_at timestamptz, publish_after timestamptz)
returns void language plpgsql as $$
begin
    if run_at not between '2000-01-01Z' and now() + interval '10 years' then
        perform baton_refuse('bad_input',
            'run_at must be a time from the year 2000 to ten years ahead.', 'run_at');
    end if;
    if publish_after > now() + interval '1 hour' then
        perform baton_refuse('bad_input',
            'publish_after is for the next moments: to have a job later give run_at.',
            'publish_after');
    end if;
end $$;

-- The prompt may be as long as the ledger's setting says; whoever asks can only take less.
create or replace function baton_check_prompt(kind text, prompt text, prompt_limit float8)
returns void language plpgsql as $$
declare
    most constant float8 :=
        least(coalesce((baton_setting('prompt_limit') #>> '{}')::float8, 200000), prompt_limit);
begin
    if kind in ('build', 'update', 'chat_plan') and coalesce(prompt, '') ~
            '^[\s\u0085\u00a0\u1680\u2000-\u200f\u2028\u2029\u202f\u205f\u2060\u3000\ufeff]*$' then
        perform baton_refuse('bad_input', 'The prompt is empty: say what the agent is to do.', 'prompt');
    end if;
    if octet_length(prompt) > most then
        perform baton_refuse('prompt_too_long', format(
            'The prompt is %s bytes and the limit is %s: shorten it, or put the text into a file of the workspace.',
            octet_length(prompt), most), 'prompt');
    end if;
end $$;

create or replace function baton_check_key(key text) returns void language plpgsql as $$
begin
    if length(key) > 200 or key = '' then
        perform baton_refuse('bad_input', 'The key must be 1 to 200 characters.', 'key');
    end if;
end $$;

-- What every request says: all that can be judged without looking at the project.
create or replace function baton_check_request(
    kind text, version text, key text, busy text, priority float8, previous_session_id text
) returns void language plpgsql as $$
begin
    if kind is null or kind not in ('build', 'update', 'metadata', 'compaction', 'chat_plan',
                                    'repair') then
        perform baton_refuse('bad_input',
            'Unknown kind of job: use build, update, repair, chat_plan, metadata or compaction.', 'kind');
    end if;
    if version is not null then
        perform baton_check_name('The version id', version, 'version');
    end if;
    if key is not null then
        perform baton_check_key(key);
    end if;
    if previous_session_id is not null then
        perform baton_check_session('The previous session id', previous_session_id, 'previous_session_id');
    end if;
    if busy is null or busy not in ('enqueue', 'reject', 'replace', 'interrupt') then
        perform baton_refuse('bad_input', 'busy must be enqueue, reject, replace or interrupt.', 'busy');
    end if;
    if priority not between -1000000 and 1000000 or priority <> trunc(priority) then
        perform baton_refuse('bad_input',
            'priority must be a whole number from -1000000 to 1000000.', 'priority');
    end if;
end $$;
