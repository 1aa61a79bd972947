-- Locks that nobody is waited for. Each of these takes what it can, which lasts until the transaction ends, and
-- says whether it has all of it: what somebody holds is left for the next look, and hides nothing behind it.

-- The project's row, which numbers its events. Also true where there is no such project (yet).
create or replace function baton_hold_project(project text) returns boolean language plpgsql as $$
begin
    perform from projects p where p.project_id = project for no key update skip locked;
    return found or not exists (select from projects p where p.project_id = project);
end $$;

-- What a cancel of the job needs: what is open of its chain and, where something that waits ends with an event,
-- the project's row. What runs is only marked; the end of a racer is told by the relay.
create or replace function baton_hold_chain(job uuid) returns boolean language plpgsql as $$
#variable_conflict use_column
declare
    chain   uuid;
    project text;
    held    uuid[];
    told    boolean;
begin
    select j.chain_id, j.project_id into chain, project from jobs j where j.id = job;
    select coalesce(array_agg(h.id), '{}'), coalesce(bool_or(h.told), false) into held, told from (
        select j.id, j.state in ('queued', 'parked') and not j.args ? 'racer' as told from jobs j
         where j.chain_id = chain and j.finished_at is null for update skip locked) h;
    if exists (select from jobs j
                where j.chain_id = chain and j.finished_at is null and j.id <> all(held)) then
        return false;
    end if;
    return not told or baton_hold_project(project);
end $$;
