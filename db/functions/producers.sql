-- What a producer's own role may ask for: a role that can write no table (docs/security.md, Roles).
--
-- A connection says for whom it speaks, in a statement of its own, and row-level security goes by that:
--
--     select set_config('baton.user', 'ann', false);      -- true: for this transaction

-- For whom this connection speaks; null: for nobody.
create or replace function baton_user() returns text language sql stable parallel safe as $$
    select nullif(current_setting('baton.user', true), '')
$$;

-- Refuses a request of a user for whom this connection does not speak.
create or replace function baton_check_speaker(user_id text) returns void language plpgsql as $$
begin
    if user_id is null or user_id is distinct from baton_user() then
        perform baton_refuse('wrong_user', format(
            'This connection speaks for %s: say select set_config(''baton.user'', …) with the request''s user first.',
            case when baton_user() is null then 'nobody' else 'another user' end), 'user');
    end if;
end $$;

drop function if exists baton_enqueue_for(text, text, text, text, text, text, text, float8, timestamptz,
    text, jsonb, uuid, timestamptz, float8, text, float8, float8, text, text, text, text, text);
drop function if exists baton_enqueue_for(text, text, text, text, text, text, text, float8, timestamptz,
    text, jsonb, uuid, timestamptz, float8, text, float8, float8, text, text, text, text, text, text, float8,
    text, text);

drop function if exists baton_enqueue_for(text, text, text, text, text, text, text, float8, timestamptz,
    text, jsonb, uuid, timestamptz, float8, text, float8, float8, text, text, text, text, text, text, float8,
    text, text, float8, text, text[]);

-- baton_enqueue with the rights of the tables' owner, for the user of the connection alone. Nobody asks as
-- an operator here. Whoever may write `jobs` has no use for it.
create or replace function baton_enqueue_for(
    kind text, project text, user_id text, prompt text, version text, key text, busy text,
    priority float8, run_at timestamptz, previous_session_id text, options jsonb, id uuid,
    publish_after timestamptz, prompt_limit float8, model text, max_turns float8, budget float8,
    workspace text, on_lost text, branch_from text, template text, callback_url text,
    "check" text, check_tries float8, on_check_failed text, error text,
    race float8, race_by text, race_models text[], race_seconds float8
) returns uuid language plpgsql security definer as $$
begin
    perform baton_check_speaker(user_id);
    return baton_enqueue(
        kind => kind, project => project, user_id => user_id, prompt => prompt, version => version,
        key => key, busy => busy, priority => priority, run_at => run_at,
        previous_session_id => previous_session_id, options => options, id => id,
        publish_after => publish_after, prompt_limit => prompt_limit, model => model,
        max_turns => max_turns, budget => budget, workspace => workspace, on_lost => on_lost,
        branch_from => branch_from, template => template, callback_url => callback_url,
        "check" => "check", check_tries => check_tries, on_check_failed => on_check_failed, error => error,
        race => race, race_by => race_by, race_models => race_models,
        race_seconds => race_seconds);
end $$;

-- Have a job of the connection's user cancelled, and what follows in its chain: a relay does it within
-- seconds, as after a revoke. False, with nothing written, where nothing of it is left to do, where there is
-- no such job, and where it is another user's.
create or replace function baton_cancel(job uuid) returns boolean language plpgsql security definer as $$
#variable_conflict use_variable
begin
    perform baton_check_speaker(baton_user());
    insert into revoked_tasks as r (job_id)
    select a.id from jobs a
     where a.id = job and a.user_id = baton_user()
       and exists (select from jobs j where j.chain_id = a.chain_id and j.finished_at is null)
        on conflict (job_id) do update set at = now();
    return found;
end $$;

drop function if exists baton_retry(uuid, boolean);

-- Ask for a finished job of the connection's user once more; the new job's id, under a key always the same.
-- Null where it has not ended, where there is no such job, and where it is another user's.
create or replace function baton_retry(job uuid, fresh boolean default false, key text default null)
returns uuid language plpgsql security definer as $$
begin
    perform baton_check_speaker(baton_user());
    return baton_again(job, gen_random_uuid(), case when fresh then '{"fresh": true}'::jsonb else '{}' end,
                       baton_user(), key);
end $$;

-- On the tables beside them, and nobody's but a producer's to call (db/core/roles.py grants it).
do $$
declare
    door regprocedure;
begin
    for door in select p.oid from pg_proc p
                 where p.pronamespace = current_schema()::regnamespace
                   and p.proname in ('baton_enqueue_for', 'baton_cancel', 'baton_retry') loop
        execute format('alter function %s set search_path to %I, pg_temp', door, current_schema());
        execute format('revoke all on function %s from public', door);
    end loop;
end $$;
