-- Webhooks: which address may be named, and the row that is written when a chain has ended.

-- The host of an address as the setting callback_hosts has hosts; null: it is no address to be told at.
create or replace function baton_host_of(url text) returns text language sql immutable as $$
    select lower(substring(
        url from '^https?://([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?].*)?$'))
     where length(url) <= 2000 and url ~ '^[!-~]+$' and url !~ '[#\\]'
$$;

create or replace function baton_check_callback(url jsonb) returns void language plpgsql as $$
declare
    host constant text := baton_host_of(url #>> '{}');
    port constant int := substring(url #>> '{}' from '^https?://[^/?]*:([0-9]{1,5})(?:[/?]|$)');
begin
    if host is null or jsonb_typeof(url) <> 'string' or port not between 1 and 65535 then
        perform baton_refuse('bad_callback',
            'callback_url must be an http or https address of at most 2000 characters, without a user, a password or a #.',
            'callback_url');
    elsif not exists (
            select from jsonb_array_elements_text(coalesce(baton_setting('callback_hosts'), '[]')) one
             where one in (host, '*')
                or starts_with(one, '*.') and right(host, length(one) - 1) = substr(one, 2)) then
        perform baton_refuse('bad_callback', format(
            'No webhook may go to %s: name it in BATON_CALLBACK_HOSTS of your workers, or leave callback_url out.',
            left(host, 200)), 'callback_url');
    end if;
end $$;

-- A job has ended: if nothing of its chain is left to do, whoever asked is told. Looked at when the
-- transaction commits, since one that sets a job aside inserts the next one after that. A trigger, so that
-- no way to end a job can forget it.
create or replace function baton_chain_ended() returns trigger language plpgsql as $$
begin
    perform from jobs a where a.id = new.chain_id and a.callback_url is not null;
    if not found then
        return null;
    end if;
    insert into webhooks (chain_id, project_id, user_id, url, host)
    select a.id, a.project_id, a.user_id, a.callback_url, baton_host_of(a.callback_url)
      from jobs a
     where a.id = new.chain_id and a.callback_url is not null
       and (select true from jobs o  -- a range: by the index of chains, not through all that is open
             where o.chain_id >= new.chain_id and o.chain_id <= new.chain_id and o.finished_at is null
             order by o.chain_id limit 1) is null
        on conflict do nothing;
    return null;
end $$;

-- It runs when a stranger's transaction commits, with the search_path and, before Postgres 18, the role of
-- that: as the owner of the tables then, and on no temporary table of the stranger's.
do $$
begin
    execute format('alter function baton_chain_ended security definer set search_path to %s', concat_ws(', ',
                   quote_ident(current_schema()), nullif(current_setting('search_path'), ''), 'pg_temp'));
    if not exists (select from pg_trigger
                    where tgrelid = 'jobs'::regclass and tgname = 'jobs_chain_ended') then
        create constraint trigger jobs_chain_ended after update of finished_at on jobs
            deferrable initially deferred for each row
            when (old.finished_at is null and new.finished_at is not null)
            execute function baton_chain_ended();
    end if;
end $$;
