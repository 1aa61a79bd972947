-- Asking for work, from any language, in the asker's own transaction.
--
-- No existing row of projects is touched: this runs in strangers' transactions, and a row they hold
-- would stop workers.

create or replace function baton_enqueue(
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
    lane    text;
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

    lane := baton_lane(project, user_id, lower(options ->> 'branch_from'), job);
    perform baton_check_template(project, options ->> 'template');
    if lane <> 'main' and version is not null then
        perform baton_refuse('A branch makes no version before it is promoted: leave the version out.');
    end if;
    if lane = 'branch-' || job and kind <> 'chat_plan'
            and baton_tree_of(project, lower(options ->> 'branch_from')) is null then
        perform baton_refuse('Which files belong to that session is not known: build the project once, and branch from there.');
    end if;
    if busy <> 'enqueue' then
        perform baton_make_way(project, lane, busy);
    end if;
    perform baton_create_project(project, user_id, options ->> 'workspace');
    insert into jobs (id, chain_id, project_id, user_id, lane, kind, args, key, body_digest, priority,
                      version_id, previous_session_id, run_at, publish_after, scheduled)
    values (job, job, project, user_id, lane, case kind when 'update' then 'build' else kind end,
            options || jsonb_strip_nulls(jsonb_build_object(
                'prompt', prompt, 'busy', busy, 'asked', kind)),
            key, digest, priority, version, lower(previous_session_id), begin_at,
            greatest(begin_at, coalesce(publish_after, now())), begin_at > now())
    on conflict do nothing;
    if not found then                            -- another transaction was first with key or id
        select * into same from jobs j
         where j.id = job or (j.project_id = project and j.key = key)
         order by j.id <> job limit 1;
        return baton_same(same, project, digest);
    end if;
    if lane = 'branch-' || job then
        insert into branches (project_id, lane, user_id, from_session, head, from_tree)
        values (project, lane, user_id, lower(options ->> 'branch_from'),
                lower(options ->> 'branch_from'),
                baton_tree_of(project, lower(options ->> 'branch_from')));
    end if;
    return job;
end $$;

create or replace function baton_same(same jobs, project text, digest text) returns uuid language plpgsql as $$
begin
    if same.body_digest is distinct from digest or same.project_id is distinct from project then
        perform baton_refuse('This key or id was used for another request: use a new one, or send the same request.');
    end if;
    return same.id;
end $$;

-- reject, replace and interrupt look at the lane, so they serialise: make such a request the last
-- thing in your transaction. A running row is never locked here; its worker sees an interrupting
-- job by itself; what waits of a begun chain ends here.
create or replace function baton_make_way(project text, lane text, busy text) returns void language plpgsql as $$
#variable_conflict use_variable
begin
    perform pg_advisory_xact_lock(hashtextextended('baton:' || project, 0));
    if busy = 'reject' and exists (
            select from jobs j where j.project_id = project and j.lane = lane and j.finished_at is null) then
        perform baton_refuse('The project is busy: wait for its chain, or use busy=enqueue.');
    end if;
    if busy in ('replace', 'interrupt') then
        update jobs j
           set state = 'cancelled', finished_at = now(), untold = true,
               error_class = case when j.started_at is null and j.id = j.chain_id
                                  then 'replaced' else 'replaced_by_request' end,
               error = 'A newer request took its place.'
         where j.project_id = project and j.lane = lane and j.state in ('queued', 'parked')
           and (busy = 'interrupt' or (j.id = j.chain_id and j.started_at is null));
    end if;
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
