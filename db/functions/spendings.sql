-- What was spent in a day, in a few rows (spent_by_day), so that nobody adds up all its turns.

-- Count up to `room` of today's turns that have ended, with what was booked of them later; nothing where
-- there are fewer than `enough`: everybody counts in the same row. How many were counted.
-- The condition is that of the index turns_uncounted.
create or replace function baton_count_turns(enough int, room int) returns bigint language plpgsql as $$
#variable_conflict use_column
declare
    today timestamptz := date_trunc('day', now(), 'UTC');
    ended bigint;
begin
    select count(*) into ended from (
        select from turns t
         where t.counted_usd is distinct from greatest(t.cost_usd, t.spent_usd, 0::numeric)
           and t.started_at >= today and t.outcome <> 'running' limit enough) x;
    if ended < enough then
        return 0;
    end if;
    with new as materialized (
        select t.id, t.project_id, j.user_id, t.counted_usd as counted,
               (t.started_at at time zone 'UTC')::date as day,
               greatest(t.cost_usd, t.spent_usd, 0::numeric) as usd
          from turns t left join jobs j on j.id = t.job_id
         where t.counted_usd is distinct from greatest(t.cost_usd, t.spent_usd, 0::numeric)
           and t.started_at >= today and t.outcome <> 'running'
         order by t.started_at limit room for update of t skip locked
    ), noted as (
        update turns t set counted_usd = n.usd from new n where t.id = n.id returning t.id
    ), added as (
        insert into spent_by_day as s (day, project_id, user_id, usd, turns)
        select n.day, w.project, w.payer, sum(n.usd - coalesce(n.counted, 0)),
               count(*) filter (where n.counted is null)
          from new n cross join lateral (
                values (n.project_id, ''), ('', n.user_id), ('', '')) w (project, payer)
         where w.payer is not null  -- its job is gone
         group by 1, 2, 3 order by 1, 2, 3  -- in one order: no two wait for each other
            on conflict (day, project_id, user_id) do update
           set usd = s.usd + excluded.usd, turns = s.turns + excluded.turns
    )
    select count(*) into ended from noted;
    return ended;
end $$;

-- What turns cost that are deleted before they were added up stays in the day's sums, in the transaction that deletes
-- them. A trigger, so that no way to delete turns can forget it; where the newest worker has budgets, whatever the
-- settings of whoever deletes. Their jobs go after them: they say who pays.
create or replace function baton_count_gone() returns trigger language plpgsql as $$
begin
    if baton_setting('budgets') is distinct from 'true' then
        return null;
    end if;
    insert into spent_by_day as s (day, project_id, user_id, usd, turns)
    select n.day, w.project, w.payer, sum(n.usd - coalesce(n.counted, 0)),
           count(*) filter (where n.counted is null)
      from (select t.project_id, (select j.user_id from jobs j where j.id = t.job_id) as user_id,
                   t.counted_usd as counted, (t.started_at at time zone 'UTC')::date as day,
                   greatest(t.cost_usd, t.spent_usd, 0::numeric) as usd
              from gone t
             where t.counted_usd is distinct from greatest(t.cost_usd, t.spent_usd, 0::numeric)
               and t.started_at >= date_trunc('day', now(), 'UTC')) n
     cross join lateral (
           values (n.project_id, ''), ('', n.user_id), ('', '')) w (project, payer)
     where w.payer is not null
     group by 1, 2, 3 order by 1, 2, 3  -- as baton_count_turns
        on conflict (day, project_id, user_id) do update
       set usd = s.usd + excluded.usd, turns = s.turns + excluded.turns;
    return null;
end $$;

create or replace trigger turns_gone after delete on turns
    referencing old table as gone for each statement execute function baton_count_gone();
