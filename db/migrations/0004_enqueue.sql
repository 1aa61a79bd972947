-- Asking for work, from any language, in the asker's own transaction.
--
-- A refusal raises SQLSTATE BA001 with one sentence, before anything is written.
-- No existing row of projects is touched: this runs in strangers' transactions,
-- and a row they hold would stop workers.

create function baton_refuse(sentence text) returns void language plpgsql as $$
begin
    raise exception using errcode = 'BA001', message = sentence;
end $$;

create function baton_check_name(what text, value text) returns void language plpgsql as $$
begin
    if value is null or value !~ '^[A-Za-z0-9_][A-Za-z0-9._:@+=-]{0,199}$' then
        perform baton_refuse(format(
            '%s must be 1 to 200 letters, digits or . _ : @ + = - and begin with a letter, a digit or _.',
            what));
    end if;
end $$;

-- A user's id names no file and no key, so what identity providers put into it is let through.
create function baton_check_user(value text) returns void language plpgsql as $$
begin
    if value is null or value !~ '^[A-Za-z0-9_][A-Za-z0-9._:@+=|/-]{0,199}$' then
        perform baton_refuse(
            'The user id must be 1 to 200 letters, digits or . _ : @ + = | / - and begin with a letter, a digit or _.');
    end if;
end $$;

create function baton_check_workspace(value jsonb) returns void language plpgsql as $$
begin
    if jsonb_typeof(value) <> 'string' or value #>> '{}' !~ '^(/[^/]+)+$'
            or value #>> '{}' ~ '(^|/)[.][.]?(/|$)' or length(value #>> '{}') > 1000 then
        perform baton_refuse('The workspace must be an absolute path without . or .. in it.');
    end if;
end $$;

-- A number option: null when it is not there, refused when it is of another type.
create function baton_number(options jsonb, name text, sentence text)
returns numeric language plpgsql as $$
begin
    if not options ? name then
        return null;
    elsif jsonb_typeof(options -> name) <> 'number' then
        perform baton_refuse(sentence);
    end if;
    return (options ->> name)::numeric;
end $$;

create function baton_check_options(options jsonb) returns void language plpgsql as $$
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
     where o not in ('model', 'max_turns', 'budget', 'workspace', 'on_lost') limit 1;
    if unknown is not null then
        perform baton_refuse(format(
            'Unknown option %s: use model, max_turns, budget, workspace or on_lost.', left(unknown, 60)));
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
end $$;

create function baton_check_request(kind text, prompt text, prompt_limit int)
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

-- Another user's project, or one that this kind of job may not create: refused.
create function baton_check_project(kind text, project text, user_id text, workspace text)
returns void language plpgsql as $$
#variable_conflict use_variable
declare
    known projects;
begin
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

-- A build makes its version's row when it ends. Where the product's table has columns that
-- only the product can fill, that row must be there before: said now, not after the turn.
create function baton_check_version(kind text, project text, version text)
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

create function baton_create_project(project text, user_id text, workspace text)
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

create function baton_enqueue(
    kind                text,
    project             text,
    user_id             text,
    prompt              text default null,
    version             text default null,
    key                 text default null,
    busy                text default 'enqueue',
    priority            int default 0,
    run_at              timestamptz default null,
    previous_session_id text default null,
    options             jsonb default '{}',
    id                  uuid default null,
    publish_after       timestamptz default null,
    prompt_limit        int default 200000
) returns uuid language plpgsql as $$
#variable_conflict use_variable
declare
    job     uuid := coalesce(id, gen_random_uuid());
    digest  text;
    same    jobs;
    begin_at timestamptz := coalesce(run_at, now());
begin
    kind := replace(kind, '-', '_');
    options := coalesce(options, '{}');
    priority := coalesce(priority, 0);
    digest := md5(jsonb_build_array(kind, user_id, prompt, version, busy, options)::text);
    perform baton_check_name('The project id', project);
    perform baton_check_user(user_id);
    perform baton_check_name('The version id', version) where version is not null;
    if length(key) > 200 or key = '' then
        perform baton_refuse('The key must be 1 to 200 characters.');
    end if;
    if previous_session_id is not null and previous_session_id !~*
            '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then
        perform baton_refuse('The previous session id is not a UUID: pass one that Baton gave, or none.');
    end if;
    if busy is null or busy not in ('enqueue', 'reject', 'replace', 'interrupt') then
        perform baton_refuse('busy must be enqueue, reject, replace or interrupt.');
    end if;
    perform baton_check_request(kind, prompt, coalesce(prompt_limit, 200000));
    perform baton_check_options(options);
    perform baton_check_project(kind, project, user_id, options ->> 'workspace');

    select * into same from jobs j                -- the same message or request again
     where j.id = id or (j.project_id = project and j.key = key)
     order by j.id is distinct from id limit 1;
    if found then
        return baton_same(same, project, digest);
    end if;
    perform baton_check_version(kind, project, version);

    if busy <> 'enqueue' then
        perform baton_make_way(project, busy);
    end if;
    perform baton_create_project(project, user_id, options ->> 'workspace');
    insert into jobs (id, chain_id, project_id, user_id, kind, args, key, body_digest, priority,
                      version_id, previous_session_id, run_at, publish_after)
    values (job, job, project, user_id, case kind when 'update' then 'build' else kind end,
            options || jsonb_strip_nulls(jsonb_build_object(
                'prompt', prompt, 'busy', busy, 'asked', kind)),
            key, digest, priority, version, lower(previous_session_id), begin_at,
            greatest(begin_at, coalesce(publish_after, now())))
    on conflict do nothing;
    if not found then                            -- another transaction was first with key or id
        select * into same from jobs j
         where j.id = job or (j.project_id = project and j.key = key)
         order by j.id <> job limit 1;
        return baton_same(same, project, digest);
    end if;
    return job;
end $$;

-- Whatever search_path its caller has, it works on the tables beside it.
do $$
begin
    execute format('alter function %s set search_path to %I, %s',
        (select p.oid::regprocedure from pg_proc p
          where p.proname = 'baton_enqueue' and p.pronamespace = current_schema()::regnamespace),
        current_schema(), current_setting('search_path'));
end $$;

comment on function baton_enqueue is
    'Ask for a job in your own transaction; returns its id. Refusals have SQLSTATE BA001.';

create function baton_same(same jobs, project text, digest text) returns uuid language plpgsql as $$
begin
    if same.body_digest is distinct from digest or same.project_id is distinct from project then
        perform baton_refuse('This key or id was used for another request: use a new one, or send the same request.');
    end if;
    return same.id;
end $$;

-- reject, replace and interrupt look at the lane, so they serialise: make such a
-- request the last thing in your transaction. A running row is never locked here;
-- its worker sees an interrupting job by itself; what waits of a begun chain ends here.
create function baton_make_way(project text, busy text) returns void language plpgsql as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('baton:' || project, 0));
    if busy = 'reject' and exists (
            select from jobs j where j.project_id = project and j.lane = 'main' and j.finished_at is null) then
        perform baton_refuse('The project is busy: wait for its chain, or use busy=enqueue.');
    end if;
    if busy in ('replace', 'interrupt') then
        update jobs j
           set state = 'cancelled', finished_at = now(), untold = true,
               error_class = case when j.started_at is null and j.id = j.chain_id
                                  then 'replaced' else 'replaced_by_request' end,
               error = 'A newer request took its place.'
         where j.project_id = project and j.lane = 'main' and j.state in ('queued', 'parked')
           and (busy = 'interrupt' or (j.id = j.chain_id and j.started_at is null));
    end if;
end $$;
