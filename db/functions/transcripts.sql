-- Notes the transaction that last took transcripts of a project away: a session's fingerprint has
-- it, so that what was found sound before is read again.

create or replace function transcript_note_removal() returns trigger language plpgsql as $$
begin
    if tg_op = 'TRUNCATE' then
        insert into transcript_removals values ('', pg_current_xact_id())
        on conflict (project_id) do update set xact = excluded.xact;
    else
        insert into transcript_removals
        select project_id, pg_current_xact_id()
          from gone group by project_id order by project_id
        on conflict (project_id) do update set xact = excluded.xact;
    end if;
    return null;
end $$;
