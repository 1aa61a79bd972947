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

-- An append as it usually goes, in one statement: the attempt holds its job, the transcript is as its
-- writer left it (`known`: its newest batch; null: there is none), no entry of it comes twice, and
-- every body is given or known. Returns the new batch's id. Null, with nothing written: it is another
-- case, of which db/transcripts/appends.py makes what is to be made of it. Writers of a project
-- take turns on the same lock as there.
create or replace function baton_append(
    project text, session text, sub text, job uuid, fence uuid, parent text, known bigint,
    digests bytea[], uuids uuid[], bodies bytea[], lay bytea, size bigint, came bytea, told json
) returns bigint language plpgsql as $$
declare
    batch bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('transcripts of ' || project, 0));
    perform from jobs j
      where j.id = job and j.attempt = fence and j.state = 'running'
        and not exists (select from project_ai_session_metrics m
                         where m.session_id = session
                           and (m.project_id <> j.project_id or m.lane <> j.lane))
        for share;
    if not found
       or known is distinct from (
            select s.last_batch from transcript_sessions s
             where (s.project_id, s.session_id, s.subpath) = (project, session, sub))
       or known is null and parent <> session and exists (  -- what its sub-agents said is carried over
            select from transcript_sessions s
             where s.project_id = project and s.session_id = parent and s.subpath <> '')
       or known is not null and exists (
            select from transcript_entries e
              join (select r.start, r.run from transcript_batches b, unnest(b.starts, b.runs) as r (start, run)
                     where (b.project_id, b.session_id, b.subpath) = (project, session, sub)) r
                on e.id >= r.start and e.id < r.start + r.run
             where e.project_id = project and e.uuid = any(uuids))
       or exists (
            select from unnest(digests, bodies) as x (digest, body)
             where x.body is null and not exists (
                select from transcript_entries e
                 where e.project_id = project and e.digest = x.digest)) then
        return null;
    end if;
    insert into transcript_entries (project_id, digest, uuid, body)
    select project, x.digest, x.uuid, x.body
      from (select distinct on (u.digest) u.* from unnest(digests, uuids, bodies)
                   with ordinality as u (digest, uuid, body, n)
             where u.body is not null order by u.digest, u.n) x
     where not exists (select from transcript_entries e
                        where e.project_id = project and e.digest = x.digest)
     order by x.n;
    with placed as (
        select e.id, u.n, e.id - u.n as apart
          from unnest(digests) with ordinality as u (digest, n)
          join transcript_entries e on e.project_id = project and e.digest = u.digest
    ), cut as (
        select p.*, p.apart is distinct from lag(p.apart) over (order by p.n) as begins from placed p
    ), numbered as (
        select c.*, count(*) filter (where c.begins) over (order by c.n) as run from cut c
    ), runs as (
        select min(n.n) as n, min(n.id) as start, count(*)::integer as length
          from numbered n group by n.run
    )
    insert into transcript_batches
           (project_id, session_id, subpath, starts, runs, overlay, entries, bytes)
    select project, session, sub, array_agg(r.start order by r.n), array_agg(r.length order by r.n),
           lay, cardinality(digests), size
      from runs r
    returning id into batch;
    insert into transcript_sessions as s
           (project_id, session_id, subpath, entries, bytes, last_batch, last_digest, summary)
    values (project, session, sub, cardinality(digests), size, batch, came, told)
        on conflict (project_id, session_id, subpath) do update
           set entries = s.entries + excluded.entries, bytes = s.bytes + excluded.bytes,
               last_batch = excluded.last_batch, last_digest = excluded.last_digest,
               summary = excluded.summary, updated_at = clock_timestamp();
    return batch;
end $$;
