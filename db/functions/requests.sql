-- What a request may say, looked at before anything is written. A refusal raises SQLSTATE BA001 with
-- one sentence.

create or replace function baton_refuse(sentence text) returns void language plpgsql as $$
begin
    raise exception using errcode = 'BA001', message = sentence;
end $$;

create or replace function baton_check_name(what text, value text) returns void language plpgsql as $$
begin
    if value is null or value !~ '^[A-Za-z0-9_][A-Za-z0-9._:@+=-]{0,199}$' then
        perform baton_refuse(format(
            '%s must be 1 to 200 letters, digits or . _ : @ + = - and begin with a letter, a digit or _.',
            what));
    end if;
end $$;

-- A user's id names no file and no key, so what identity providers put into it is let through.
create or replace function baton_check_user(value text) returns void language plpgsql as $$
begin
    if value is null or value !~ '^[A-Za-z0-9_][A-Za-z0-9._:@+=|/-]{0,199}$' then
        perform baton_refuse(
            'The user id must be 1 to 200 letters, digits or . _ : @ + = | / - and begin with a letter, a digit or _.');
    end if;
end $$;

create or replace function baton_check_workspace(value jsonb) returns void language plpgsql as $$
begin
    if jsonb_typeof(value) <> 'string' or value #>> '{}' !~ '^(/[^/]+)+$'
            or value #>> '{}' ~ '(^|/)[.][.]?(/|$)' or length(value #>> '{}') > 1000 then
        perform baton_refuse('The workspace must be an absolute path without . or .. in it.');
    end if;
end $$;

-- A number option: null when it is not there, refused when it is of another type.
create or replace function baton_number(options jsonb, name text, sentence text)
returns numeric language plpgsql as $$
begin
    if not options ? name then
        return null;
    elsif jsonb_typeof(options -> name) <> 'number' then
        perform baton_refuse(sentence);
    end if;
    return (options ->> name)::numeric;
end $$;

create or replace function baton_check_options(options jsonb) returns void language plpgsql as $$
declare
    unknown text;
    amount  constant text :=
        'max_turns must be a whole number from 1 to 100000 and budget an amount above 0 in USD.';
    turns   numeric;
begin
    if jsonb_typeof(options) <> 'object' then
        perform baton_refuse('options must be a JSON object.');
    end if;
    if octet_length(options::text) > 16384 then
        perform baton_refuse('The options are larger than 16 kB: put long text into the prompt.');
    end if;
    select o into unknown from jsonb_object_keys(options) as o
     where o not in ('model', 'max_turns', 'budget', 'workspace', 'on_lost', 'branch_from',
                     'template') limit 1;
    if unknown is not null then
        perform baton_refuse(format(
            'Unknown option %s: use model, max_turns, budget, workspace, on_lost, branch_from or template.',
            left(unknown, 60)));
    end if;
    turns := baton_number(options, 'max_turns', amount);
    if turns < 1 or turns > 100000 or turns <> trunc(turns)
            or baton_number(options, 'budget', amount) <= 0 then
        perform baton_refuse(amount);
    end if;
    if options ? 'model' and (jsonb_typeof(options -> 'model') <> 'string'
            or options ->> 'model' !~ '^[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,199}$') then
        perform baton_refuse('model must be the name of a model, such as sonnet.');
    end if;
    if coalesce(options ->> 'on_lost', 'fresh') not in ('fresh', 'ask') then
        perform baton_refuse('on_lost must be fresh or ask.');
    end if;
    if options ? 'workspace' then
        perform baton_check_workspace(options -> 'workspace');
    end if;
    if options ? 'template' then
        perform baton_check_name('The name of the template', options ->> 'template');
    end if;
    if options ->> 'branch_from' !~*
            '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then
        perform baton_refuse('branch_from is not a UUID: name a session of the project.');
    end if;
    if options ? 'branch_from' and options ? 'template' then
        perform baton_refuse('A branch begins from a session of its project: leave the template out.');
    end if;
end $$;

create or replace function baton_check_request(kind text, prompt text, prompt_limit int)
returns void language plpgsql as $$
begin
    if kind is null or kind not in ('build', 'update', 'metadata', 'compaction', 'chat_plan') then
        perform baton_refuse('Unknown kind of job: use build, update, chat_plan, metadata or compaction.');
    end if;
    if kind in ('build', 'update', 'chat_plan') and coalesce(prompt, '') ~
            '^[\s\u0085\u00a0\u1680\u2000-\u200f\u2028\u2029\u202f\u205f\u2060\u3000\ufeff]*$' then
        perform baton_refuse('The prompt is empty: say what the agent is to do.');
    end if;
    if octet_length(prompt) > prompt_limit then
        perform baton_refuse(format(
            'The prompt is %s bytes and the limit is %s: shorten it, or put the text into a file of the workspace.',
            octet_length(prompt), prompt_limit));
    end if;
end $$;
