-- Asking for work, from any language, in the asker's own transaction.
--
-- No existing row of projects is touched: this runs in strangers' transactions, and a row they hold
-- would stop workers. What is looked at to decide is looked at again under the lock that others
-- must take to change it.

drop function if exists baton_enqueue(text, text, text, text, text, text, text, int, timestamptz, text,
                                      jsonb, uuid, timestamptz, int);
drop function if exists baton_same(jobs, text, text);
drop function if exists baton_enqueue(text, text, text, text, text, text, text, float8, timestamptz, text,
                                      jsonb, uuid, timestamptz, float8, text, float8, float8, text, text,
                                      text, text, boolean);
drop function if exists baton_enqueue(text, text, text, text, text, text, text, float8, timestamptz, text,
                                      jsonb, uuid, timestamptz, float8, text, float8, float8, text, text,
                                      text, text, boolean, text);

drop function if exists baton_enqueue(text, text, text, text, text, text, text, float8, timestamptz, text,
                                      jsonb, uuid, timestamptz, float8, text, float8, float8, text, text,
                                      text, text, boolean, text, text, float8, text, text);

drop function if exists baton_enqueue(text, text, text, text, text, text, text, float8, timestamptz, text,
                                      jsonb, uuid, timestamptz, float8, text, float8, float8, text, text,
                                      text, text, boolean, text, text, float8, text, text, float8, text,
                                      text[]);
drop function if exists baton_again(uuid, uuid, jsonb, text);

create or replace function baton_enqueue(
    kind                text,
    project             text,
    user_id             text,
    prompt              text default null,
    version             text default null,
    key                 text default null,
    busy                text default 'enqueue',
    priority            float8 default 0,          -- numbers of any type are taken, and looked at
    run_at              timestamptz default null,
    previous_session_id text default null,
    options             jsonb default '{}',        -- as older clients give what is named below
    id                  uuid default null,
    publish_after       timestamptz default null,
    prompt_limit        float8 default null,       -- less than the ledger's
    model               text default null,
    max_turns           float8 default null,
    budget              float8 default null,
    workspace           text default null,
    on_lost             text default null,
    branch_from         text default null,
    template            text default null,
    operator            boolean default false,     -- may ask as a user whose id is reserved
    callback_url        text default null,         -- is told when the chain has ended
    "check"             text default null,         -- a shell line; several: a list among the options
    check_tries         float8 default null,
    on_check_failed     text default null,
    error               text default null,         -- of a repair, in place of a prompt
    race                float8 default null,       -- how many do it side by side; one that passes counts
    race_by             text default null,         -- which one: first, cheapest or smallest
    race_models         text[] default null,       -- one for each of them
    race_seconds        float8 default null        -- how long those that pass are waited for
) returns uuid language plpgsql as $$
#variable_conflict use_variable
declare
    job      constant uuid := coalesce(id, gen_random_uuid());
    begin_at constant timestamptz := coalesce(run_at, now());
    digest   text;
    same     uuid;
    known    record;
    lane     text := 'main';
    head     text;
    about    text;
    work     text;
begin
    if not has_table_privilege('jobs', 'insert') then
        return baton_enqueue_for(                  -- it is a producer's role
            kind, project, user_id, prompt, version, key, busy, priority, run_at,
            previous_session_id, options, id, publish_after, prompt_limit, model, max_turns, budget,
            workspace, on_lost, branch_from, template, callback_url, "check", check_tries,
            on_check_failed, error, race, race_by, race_models, race_seconds);
    end if;
    kind := replace(kind, '-', '_');
    work := case kind when 'repair' then 'update' else kind end;
    priority := coalesce(priority, 0);
    if starts_with(user_id, '_') and user_id <> '_template' and operator is not true then
        operator := exists (select from projects p where p.project_id = project and p.user_id = user_id);
    end if;
    perform baton_check_name('The project id', project, 'project'), baton_check_user(user_id, operator),
            baton_check_request(kind, version, key, busy, priority, previous_session_id),
            baton_check_times(run_at, publish_after), baton_check_error(kind, prompt, error);
    if kind = 'repair' then  -- it makes a version of its own; what it names is the one that failed
        prompt := error;
        about := version;
        version := null;
    end if;
    perform baton_check_prompt(work, prompt, prompt_limit);
    options := baton_options(options, jsonb_build_object(
        'model', model, 'max_turns', max_turns, 'budget', budget,
        'workspace', workspace, 'on_lost', on_lost, 'branch_from', branch_from, 'template', template,
        'callback_url', callback_url, 'check', "check", 'check_tries', check_tries,
        'on_check_failed', on_check_failed, 'race', race, 'race_by', race_by,
        'race_models', to_jsonb(race_models), 'race_seconds', race_seconds));
    if options <> '{}' then
        perform baton_check_checks(kind, options);
    end if;
    if about is not null then
        options := options || jsonb_build_object('about', about);
    end if;
    digest := md5(jsonb_build_array(kind, user_id, prompt, version, busy, options)::text);
    known := baton_check_project(work, project, user_id, options ->> 'workspace');
    perform baton_check_isolation(project, busy, options ->> 'workspace');
    if options <> '{}' then
        perform baton_check_race(kind, project, options);
    end if;

    same := baton_asked(id, project, key, digest);
    if same is not null then
        return same;
    end if;
    perform baton_check_lengths(work, project, user_id, version),
            baton_check_version(work, project, version);
    if options <> '{}' then
        perform baton_check_about(project, about), baton_check_template(project, options ->> 'template');
        head := lower(options ->> 'branch_from');
    end if;
    if head is not null then
        lane := baton_lane(project, user_id, head, job);
        perform baton_check_branch(work, project, version, lane, head, job);
    end if;
    if busy <> 'enqueue' then
        perform baton_hold_lanes(project);
        same := baton_asked(id, project, key, digest);
        if same is not null then
            return same;
        end if;
        if begin_at <= clock_timestamp() then
            perform baton_make_way(project, lane, busy);
        end if;
    end if;
    if known.is_new then
        perform baton_insert_project(project, user_id, known.place);
    end if;
    loop
        insert into jobs (id, chain_id, project_id, user_id, lane, kind, args, key, body_digest,
                          priority, version_id, previous_session_id, run_at, publish_after,
                          scheduled, callback_url)
        values (job, job, project, user_id, lane, case work when 'update' then 'build' else work end,
                options - 'callback_url' || jsonb_strip_nulls(jsonb_build_object(
                    'prompt', prompt, 'busy', busy, 'asked', kind)),
                key, digest, priority, version, lower(previous_session_id), begin_at,
                greatest(begin_at, coalesce(publish_after, now())), begin_at > now(),
                options ->> 'callback_url')
        on conflict do nothing;
        exit when found;
        same := baton_asked(job, project, key, digest);  -- who was first has committed meanwhile
        if same is not null then
            return same;
        end if;
    end loop;
    if lane = 'branch-' || job then
        insert into branches (project_id, lane, user_id, from_session, head, from_tree)
        values (project, lane, user_id, head, head, baton_tree_of(project, head));
    end if;
    perform baton_count_ask(user_id);
    return job;
end $$;

-- The job that was asked for before under this id or key; null: none. Refused where that was another
-- request. Each is a look-up of its own: of both in one, a plan that was made of a new ledger reads all jobs.
create or replace function baton_asked(id uuid, project text, key text, digest text) returns uuid
language plpgsql as $$
#variable_conflict use_variable
declare
    same record;
begin
    if id is not null then
        select j.id, j.project_id, j.body_digest into same from jobs j where j.id = id;
    end if;
    if same is null and key is not null then
        select j.id, j.project_id, j.body_digest into same from jobs j
         where j.project_id = project and j.key = key;
    end if;
    if same is null then
        return null;
    elsif same.body_digest is distinct from digest or same.project_id <> project then
        perform baton_refuse('key_conflict',
            'This key or id was used for another request: use a new one, or send the same request.',
            case when same.id = id then 'id' else 'key' end);
    end if;
    return same.id;
end $$;

-- reject, replace and interrupt look at the lane, so those who ask with them take turns: make such
-- a request the last thing in your transaction.
create or replace function baton_hold_lanes(project text) returns void language sql as $$
    select pg_advisory_xact_lock(hashtextextended('baton:' || project, 0))
$$;

-- What holds a place in the lane is what was not asked for a later time, or that time has come.
-- (By the clock: what was asked for while we waited for our turn is later than our transaction's now.)
-- A running row is never locked here; its worker sees an interrupting job by itself; what waits of
-- a begun chain ends here.
create or replace function baton_make_way(project text, lane text, busy text) returns void language plpgsql as $$
#variable_conflict use_variable
declare
    waits uuid;
begin
    if busy = 'reject' then
        if exists (
            select from jobs j
             where j.project_id = project and j.lane = lane and j.finished_at is null
               and not j.scheduled)
        or exists (
            select from jobs j
             where j.project_id = project and j.lane = lane and j.finished_at is null
               and j.scheduled and j.run_at <= clock_timestamp()) then
            perform baton_refuse('busy', 'The project is busy: wait for its chain, or use busy=enqueue.',
                'busy');
        end if;
        return;
    end if;
    for waits in  -- in the order of the index of lanes: else, by a plan of a new ledger, of all that waits
        select j.id from jobs j
         where (j.project_id, j.lane, j.pos) >= (project, lane, 0)
           and (j.project_id, j.lane) <= (project, lane) and j.finished_at is null
           and j.state in ('queued', 'parked')
           and (not j.scheduled or j.run_at <= clock_timestamp())
           and (busy = 'interrupt' or (j.id = j.chain_id and j.started_at is null))
         order by j.project_id, j.lane, j.pos loop
        update jobs j
           set state = 'cancelled', finished_at = now(), untold = true, ready = false,
               error_class = case when j.started_at is null and j.id = j.chain_id
                                  then 'replaced' else 'replaced_by_request' end,
               error = 'A newer request took its place.'
         where j.id = waits and coalesce(j.state in ('queued', 'parked'), false)  -- as no index has it: by id
           and (busy = 'interrupt' or j.started_at is null);
    end loop;
end $$;

-- Count a request of the user's, or refuse it: so many in a minute, by the clock and not by when a
-- transaction began. Whoever asks for the same user at once waits for the other's end.
create or replace function baton_count_ask(user_id text) returns void language plpgsql as $$
#variable_conflict use_variable
declare
    most   constant int := coalesce((baton_setting('user_rate') #>> '{}')::int, 0);
    minute constant interval := interval '1 minute';
    again_at timestamptz;
begin
    if most = 0 then
        return;
    end if;
    insert into user_asks as u (user_id, asked) values (user_id, array[clock_timestamp()])
        on conflict on constraint user_asks_pkey do update
       set asked = array(select t from unnest(u.asked) t where t > clock_timestamp() - minute)
                   || clock_timestamp()
     where (select count(*) from unnest(u.asked) t where t > clock_timestamp() - minute) < most;
    if not found then
        select t + minute into again_at from user_asks u, unnest(u.asked) t
         where u.user_id = user_id order by t desc offset most - 1 limit 1;
        perform baton_refuse('too_many_requests', format(
            'This user has asked for %s jobs within a minute, which is the limit: ask again at %s.', most,
            to_char(again_at at time zone 'UTC', 'HH24:MI:SS"Z"')), 'user', again_at);
    end if;
end $$;

-- A finished job once more, as a new one that names it, with what every request is held to; null: there
-- is no such job of the user's (null: of anybody), or it has not ended. A build that has made its
-- version makes another one. Under a key it is one job, however often it is asked for.
create or replace function baton_again(job uuid, new uuid, more jsonb default '{}', asked_by text default null,
                                       key text default null)
returns uuid language plpgsql as $$
#variable_conflict use_variable
declare
    old     jobs;
    same    uuid;
    version text;
    lane    text;
    digest  text;
begin
    perform baton_check_key(key);
    select * into old from jobs j where j.id = job and j.user_id = coalesce(asked_by, j.user_id);
    if old.finished_at is null then
        return null;
    end if;
    version := case when old.kind = 'build' and (old.state = 'done' or exists (
                             select from checks c where c.job_id = old.id))  -- it made its version
                    then null else old.version_id end;
    perform baton_check_project('update', old.project_id, old.user_id, null);
    perform baton_check_isolation(old.project_id, 'enqueue', null);
    if key is not null then
        digest := md5(jsonb_build_array('retry', old.id, more)::text);
    end if;
    same := baton_asked(new, old.project_id, key, digest);
    if same is not null then
        return same;
    end if;
    perform baton_check_prompt(old.kind, old.args ->> 'prompt', null);
    perform baton_check_lengths(old.kind, old.project_id, old.user_id, version);
    lane := baton_lane_again(old.project_id, old.lane);
    if lane = 'main' then
        perform baton_check_version(old.kind, old.project_id, version);
    end if;
    loop
        insert into jobs (id, chain_id, retry_of, project_id, user_id, lane, kind, args, key, body_digest,
                          priority, version_id, previous_session_id, callback_url)
        values (new, new, old.id, old.project_id, old.user_id, lane, old.kind,
                (old.args - '{busy,fresh,answer,lost,check_answer,repair_at,racer}'::text[]) || more, key, digest,
                old.priority, version, old.previous_session_id, old.callback_url)
        on conflict do nothing;
        exit when found;
        same := baton_asked(new, old.project_id, key, digest);  -- who was first has committed meanwhile
        if same is not null then
            return same;
        end if;
    end loop;
    perform baton_count_ask(old.user_id);
    return new;
end $$;

-- Whatever search_path their callers have, they work on the tables beside them; and on no temporary
-- table of a caller's, for whom they may be run with their owner's rights (producers.sql).
do $$
declare
    door regprocedure;
begin
    for door in select p.oid from pg_proc p where p.pronamespace = current_schema()::regnamespace
                                              and p.proname in ('baton_enqueue', 'baton_again') loop
        execute format('alter function %s set search_path to %s', door, concat_ws(', ',
                       quote_ident(current_schema()), nullif(current_setting('search_path'), ''), 'pg_temp'));
    end loop;
end $$;

comment on function baton_enqueue is
    'Ask for a job in your own transaction; returns its id. Refusals have an SQLSTATE of class BA.';
