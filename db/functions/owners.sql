-- Whose a project is over HTTP: the account's whose key first used it.

-- Make the project the account's, if it is nobody's; whether it is the account's now. Two statements:
-- the second sees what another, who was first, has committed meanwhile.
create or replace function baton_take(project text, account text) returns boolean language plpgsql as $$
#variable_conflict use_variable
begin
    insert into account_projects (project_id, account_id) values (project, account) on conflict do nothing;
    if found then
        return true;
    end if;
    return exists (select from account_projects p where p.project_id = project and p.account_id = account);
end $$;

-- The state of a job that an account just asked for. Refused, with all that the request did, where
-- the project is another account's.
create or replace function baton_of_account(job uuid, project text, account text) returns text language plpgsql as $$
#variable_conflict use_variable
begin
    if not baton_take(project, account) then
        perform baton_refuse('unknown_project', 'There is no such project.', 'project');
    end if;
    return (select j.state from jobs j where j.id = job);
end $$;
