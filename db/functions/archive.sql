-- The archive of transitions, a table a month.

-- The month's table is made beside the archive and then attached: readers go on meanwhile.
-- One that was detached keeps its name, so a row that comes late goes into another.
create or replace function baton_archive_month(at timestamptz) returns void language plpgsql as $$
#variable_conflict use_variable
declare
    month   constant timestamptz := date_trunc('month', at, 'UTC');
    upto    constant timestamptz := (month at time zone 'UTC' + interval '1 month') at time zone 'UTC';
    base    constant text := 'session_transitions_archive_' || to_char(month at time zone 'UTC', 'YYYY_MM');
    name    text := base;
    n       int := 1;
    taken   pg_class;
begin
    perform pg_advisory_xact_lock(hashtextextended('baton archive', 0));
    loop
        select * into taken from pg_class c
         where c.relname = name and c.relnamespace = current_schema()::regnamespace;
        exit when taken.oid is null;
        if taken.relispartition then
            return;
        end if;
        n := n + 1;
        name := base || '_' || n;
    end loop;
    execute format('create table %I (like session_transitions_archive including defaults)', name);
    execute format('alter table session_transitions_archive attach partition %I for values from (%L) to (%L)',
                   name, month, upto);
end $$;

-- As the owner of the tables, whoever runs the clean-up, and on the tables beside it.
do $$
begin
    execute format('alter function baton_archive_month(timestamptz) security definer set search_path to %I, pg_temp',
                   current_schema());
end $$;
