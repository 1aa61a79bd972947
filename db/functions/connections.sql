-- The registry of live connections.

-- Write down a new connection, unless its user has `most` already in projects of the same account (those of
-- no account count together); whether it was. Of two at once the second waits, and counts the first.
create or replace function baton_connect(
    new uuid, project text, of_user text, tab text, gateway text, most int, silent interval
) returns boolean language plpgsql as $$
#variable_conflict use_variable
declare
    account text := (select a.account_id from account_projects a where a.project_id = project);
begin
    perform pg_advisory_xact_lock(hashtextextended(
        format('connections of %L of %L', of_user, account), 0));
    if most <= (
        select count(*) from live_connections c left join account_projects a on a.project_id = c.project_id
         where c.user_id = of_user and c.status = 'active' and c.last_active_at > now() - silent
           and a.account_id is not distinct from account)
    then
        return false;
    end if;
    insert into live_connections (conn, project_id, user_id, tab, gateway)
    values (new, project, of_user, tab, gateway);
    return true;
end $$;
