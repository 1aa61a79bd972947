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

create function baton_check_request(kind text, prompt text, options jsonb, prompt_limit int)
returns void language plpgsql as $$
declare
    unknown text;
begin
    if kind is null or kind not in ('build', 'update', 'metadata', 'compaction', 'chat_plan') then
        perform baton_refuse('Unknown kind of job: use build, update, chat_plan, metadata or compaction.');
    end if;
    if kind in ('build', 'update', 'chat_plan') and coalesce(btrim(prompt, E' \t\r\n'), '') = '' then
        perform baton_refuse('The prompt is empty: say what the agent is to do.');
    end if;
    if octet_length(prompt) > prompt_limit then
        perform baton_refuse(format(
            'The prompt is %s bytes and the limit is %s: shorten it, or put the text into a file of the workspace.',
            octet_length(prompt), prompt_limit));
    end if;
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
    if coalesce(jsonb_typeof(options -> 'max_turns'), 'number') <> 'number'
            or (options ->> 'max_turns')::numeric < 1
            or coalesce(jsonb_typeof(options -> 'budget'), 'number') <> 'number'
            or (options ->> 'budget')::numeric <= 0 then
        perform baton_refuse('max_turns must be a whole number from 1 and budget an amount above 0 in USD.');
    end if;
    if coalesce(options ->> 'on_lost', 'fresh') not in ('fresh', 'ask') then
        perform baton_refuse('on_lost must be fresh or ask.');
    end if;
end $$;

-- Another user's project, or one that this kind of job may not create: refused.
create function baton_check_project(kind text, project text, user_id text, workspace text)
returns void language plpgsql as $$
#variable_conflict use_variable
declare
    owner text;
begin
    select p.user_id into owner from projects p where p.project_id = project;
    if found and owner is distinct from user_id then
        perform baton_refuse('This project belongs to another user.');
    elsif found or kind in ('build', 'chat_plan') then
        return;
    end if;
    perform baton_refuse(format('Project %s is unknown: begin it with a build or a chat-plan.', project));
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
    exception when not_null_violation or check_violation or foreign_key_violation then
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
    digest := md5(jsonb_build_array(kind, user_id, prompt, version, busy, options)::text);
    perform baton_check_name('The project id', project);
    perform baton_check_name('The user id', user_id);
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
    perform baton_check_request(kind, prompt, options, prompt_limit);
    perform baton_check_project(kind, project, user_id, options ->> 'workspace');

    if id is not null and exists (select from jobs j where j.id = job) then
        return job;                              -- the same message again
    end if;
    select * into same from jobs j where j.project_id = project and j.key = key;
    if found then
        return baton_same_key(same, digest);
    end if;

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
         where j.id = job or (j.project_id = project and j.key = key) order by j.id = job limit 1;
        return case when same.id = job then job else baton_same_key(same, digest) end;
    end if;
    return job;
end $$;

comment on function baton_enqueue is
    'Ask for a job in your own transaction; returns its id. Refusals have SQLSTATE BA001.';

create function baton_same_key(same jobs, digest text) returns uuid language plpgsql as $$
begin
    if same.body_digest is distinct from digest then
        perform baton_refuse('This key was used for another request: use a new key, or send the same request.');
    end if;
    return same.id;
end $$;

-- reject, replace and interrupt look at the lane, so they serialise: make such a
-- request the last thing in your transaction. A running row is never locked here;
-- its worker sees an interrupting job by itself.
create function baton_make_way(project text, busy text) returns void language plpgsql as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('baton:' || project, 0));
    if busy = 'reject' and exists (
            select from jobs j where j.project_id = project and j.lane = 'main' and j.finished_at is null) then
        perform baton_refuse('The project is busy: wait for its chain, or use busy=enqueue.');
    end if;
    if busy in ('replace', 'interrupt') then
        update jobs j
           set state = 'cancelled', finished_at = now(), error_class = 'Replaced',
               error = 'A newer request took its place.', untold = true
         where j.project_id = project and j.lane = 'main' and j.id = j.chain_id
           and j.state in ('queued', 'parked') and j.started_at is null;
    end if;
end $$;
