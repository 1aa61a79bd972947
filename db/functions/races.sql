-- Races: one request on several branches, of which one is promoted (worker/job/race.py).

-- The options that are about a race, once it is known that the project is the user's.
create or replace function baton_check_race(kind text, project text, options jsonb) returns void
language plpgsql as $$
#variable_conflict use_variable
declare
    said  text;
    lines jsonb;
begin
    select o into said from unnest(array['race', 'race_by', 'race_models', 'race_seconds']) o
     where options ? o limit 1;
    if said is null then
        return;
    elsif kind not in ('build', 'update', 'repair') then
        perform baton_refuse('bad_input', format(
            '%s is for a build, an update or a repair: leave it out.', said), said);
    elsif not options ? 'race' then
        perform baton_refuse('bad_input', format('%s is for a race: give race, from 2 to 8, too.', said), said);
    elsif not baton_within(options -> 'race', 2, 8, whole => true) then
        perform baton_refuse('bad_input', 'race must be a whole number from 2 to 8.', 'race');
    elsif coalesce(options ->> 'race_by', 'first') not in ('first', 'cheapest', 'smallest') then
        perform baton_refuse('bad_input', 'race_by must be first, cheapest or smallest.', 'race_by');
    end if;
    if options ? 'race_seconds' then
        perform baton_check_race_seconds(options);
    end if;
    if options ? 'race_models' then
        perform baton_check_race_models(options -> 'race_models', (options ->> 'race')::numeric);
    end if;
    if options ? 'branch_from' then
        perform baton_refuse('bad_branch',
            'A race makes branches of its own, from the project''s newest session: leave branch_from out.',
            'race');
    end if;
    lines := coalesce(options -> 'check',
                      (select c.commands from project_checks c where c.project_id = project),
                      baton_setting('check'), '[]');
    if lines in ('[]', '""') then
        perform baton_refuse('bad_input',
            'A race needs a check that says who has passed: give check, or give the project one.', 'race');
    end if;
    if not exists (select from projects p where p.project_id = project and p.last_ai_session_id is not null)
       and not exists (select from jobs j where j.project_id = project and j.lane = 'main'
                                            and j.finished_at is null) then
        perform baton_refuse('bad_input',
            'A race begins from the project''s newest session: build the project once, then ask for a race.',
            'race');
    end if;
end $$;

-- How long those that pass are waited for. Who takes the first waits for no other.
create or replace function baton_check_race_seconds(options jsonb) returns void language plpgsql as $$
begin
    if not baton_within(options -> 'race_seconds', 1, 86400, whole => true) then
        perform baton_refuse('bad_input', 'race_seconds must be a whole number from 1 to 86400.', 'race_seconds');
    elsif coalesce(options ->> 'race_by', 'first') = 'first' then
        perform baton_refuse('bad_input',
            'race_seconds is for a race by cheapest or smallest: give race_by, or leave it out.',
            'race_seconds');
    end if;
end $$;

-- A model for each of those that race.
create or replace function baton_check_race_models(models jsonb, many numeric) returns void
language plpgsql as $$
begin
    if jsonb_typeof(models) <> 'array' or jsonb_array_length(models) <> many then
        perform baton_refuse('bad_input', format(
            'race_models must name %s models, one for each of the race.', many), 'race_models');
    end if;
    perform baton_check_options(jsonb_build_object('model', one)) from jsonb_array_elements(models) one;
end $$;

-- One of a race has ended: the relay looks at the main line, where the race's own job waits. A trigger, so
-- that no way to end a job can forget it. No other job's row is touched, so nobody waits for anybody.
create or replace function baton_racer_ended() returns trigger language plpgsql as $$
begin
    insert into lane_ends (project_id, lane) values (new.project_id, 'main');
    return null;
end $$;

create or replace trigger jobs_racer_ended after update of finished_at on jobs
    for each row when (old.finished_at is null and new.finished_at is not null and new.args ? 'racer')
    execute function baton_racer_ended();

-- While releases change, workers of the old one claim too. One that does not know races would do the request as
-- a plain build, and one that does not know `race_by` would take the first that passes. So a race, and one of
-- a race, is begun only by a claim that says what it knows (CLAIM); to any other there is nothing to begin.
create or replace function baton_races_only() returns trigger language plpgsql as $$
begin
    if current_setting('baton.knows', true) is distinct from 'races' then
        return null;
    end if;
    return new;
end $$;

create or replace trigger jobs_race_claimed before update of attempt on jobs
    for each row when (new.state = 'running' and old.state <> 'running' and new.args ?| array['race', 'racer'])
    execute function baton_races_only();
