-- The order of work: who is first in a lane, and whose job is published next.
--
--     asked ──look──► ready ──publish──► out ──claim──► running
--       ▲ └──► blocked │                  │
--       └──────────────┴──────────────────┘   not first any more; not claimed in time
--
-- Only the relay looks and publishes, one relay at a time. docs/jobs.md has the rules on a page.
-- Whose job is next is the last order of baton_publish; baton_waits_ahead says the same of one job, in
-- short: change both.

-- The job that goes before one in its lane; null: none does, it is first. What runs; what has begun;
-- what was asked for earlier. Each question is a probe of an index. A date ahead holds no place.
--
-- A lane is named as a range and its rows are asked for in the order of the index: only an index of
-- lanes has that order. With `project_id = project … limit 1` a planner that has counted a flood
-- expects to meet a fitting row at once, by any index, and reads the flood to its end for each job.
create or replace function baton_before(
    project text, line text, chain uuid, place bigint, begun boolean
) returns uuid language plpgsql stable as $$
declare
    before uuid;
begin
    before := coalesce(
        (select o.id from jobs o
          where o.project_id = project and o.lane = line and o.state = 'running'
            and o.chain_id <> chain),
        (select o.id from jobs o
          where (o.project_id, o.lane) >= (project, line)
            and (o.project_id, o.lane) <= (project, line) and o.finished_at is null
            and (o.started_at is not null or o.id <> o.chain_id) and o.chain_id <> chain
          order by o.project_id, o.lane limit 1));
    if before is null and not begun then
        select e.id into before from (
            (select o.id, o.pos from jobs o
              where (o.project_id, o.lane, o.pos) >= (project, line, 0)
                and (o.project_id, o.lane, o.pos) < (project, line, place)
                and o.finished_at is null and not o.scheduled and o.chain_id <> chain
              order by o.project_id, o.lane, o.pos limit 1)
            union all  -- its time has come, and no relay has looked yet
            (select o.id, o.pos from jobs o
              where (o.project_id, o.lane, o.run_at) >= (project, line, '-infinity')
                and (o.project_id, o.lane, o.run_at) <= (project, line, now())
                and o.finished_at is null and o.scheduled and o.pos < place
              order by o.project_id, o.lane, o.run_at limit 1)) e
         order by e.pos limit 1;
    end if;
    return before;
end $$;

create or replace function baton_first(
    project text, line text, chain uuid, place bigint, begun boolean
) returns boolean language sql stable as $$
    select baton_before(project, line, chain, place, begun) is null
$$;

-- Whether somebody else's job, or a more urgent or an older one, is known to wait for a slot: then
-- what was not chosen by the relay takes none. Without a relay (as `baton jobs` tells it, after waits.OVERDUE)
-- nobody would send for that job; to wait for it would be to wait for ever.
create or replace function baton_waits_ahead(of_user text, urgency int, place bigint)
returns boolean language plpgsql stable as $$
begin
    return (exists (
        select from user_turns u
         where u.priority > urgency
            or u.priority = urgency and (u.user_id <> of_user or u.pos < place))
    or exists (  -- asked for just now; a flood of one user is not searched to its end
        select from (select user_id, j.priority, pos from jobs j
                      where state in ('queued', 'parked') and not ready
                        and publish_after <= now() and published_at is null
                      order by publish_after limit 20) n
         where n.priority > urgency
            or n.priority = urgency and (n.user_id <> of_user or n.pos < place)))
    and exists (select from relays r where r.seen_at > now() - interval '10 s');
end $$;

-- The workers that were heard of lately, each with the limit of its credential; null: it may be used.
create or replace function baton_online(silent_after interval)
returns table (worker_id text, slots int, credential text,
               limit_until timestamptz, limit_reason text) language sql stable as $$
    select w.worker_id, w.slots, w.credential, l.until, l.reason
      from workers w left join limits l on l.credential = w.credential and l.until > now()
     where w.seen_at > now() - silent_after
$$;

-- Whether one of them has a credential that may be used.
create or replace function baton_can_work(silent_after interval) returns boolean
language sql stable as $$
    select exists (select from baton_online(silent_after) w
                    where w.credential is not null and w.limit_until is null)
$$;

-- One relay at a time looks and publishes; the others come when it is done.
create or replace function baton_my_turn() returns boolean language sql volatile as $$
    select pg_try_advisory_xact_lock(7239185, 2)
$$;

-- A request that interrupts takes the place of what waits before it, also of what went to wait
-- after the request had looked (its worker could not see the request yet), or began before its time had come.
create or replace function baton_clear_way(looked uuid[]) returns void language plpgsql as $$
declare
    newer jobs;
begin
    -- One after the other: joined, lanes may be read first, and each of their jobs be looked for among these.
    for newer in select * from jobs i where i.id = any(looked) and i.args ->> 'busy' = 'interrupt'
                                        and i.started_at is null and i.id = i.chain_id
                                        and i.run_at <= now() loop
        update jobs j
           set state = 'cancelled', finished_at = now(), untold = true, ready = false,
               error_class = 'replaced_by_request', error = 'A newer request took its place.'
         where j.id in (
            select o.id from jobs o
             where o.project_id = newer.project_id and o.lane = newer.lane
               and o.finished_at is null and o.state in ('queued', 'parked')
               and o.chain_id <> newer.chain_id and not o.scheduled
               and (o.pos < newer.pos or o.started_at is not null or o.id <> o.chain_id)
               for update of o skip locked);
    end loop;
end $$;

-- Look at what is due, at most `many`: what is first in its lane becomes ready, the rest is looked
-- at again after `again`, then after as long as it has waited, or when a chain of its lane ends.
-- Returns the events that were written: `job.queued`, and what was said. One whose row somebody holds is passed
-- over before `many` are counted, one whose project's row somebody holds is left for later: an operator who forgot
-- a transaction must not stop all others.
drop function if exists baton_look(int, interval);
create or replace function baton_look(many int, again interval)
returns table (project_id text, seq bigint, job_id uuid, type text, body jsonb)
language plpgsql as $$
#variable_conflict use_column
declare
    ended  lane_ends[];
    looked uuid[];
    free   text[];
    able   uuid[];
    first  uuid[];
begin
    if not baton_my_turn() then
        return;
    end if;
    select coalesce(array_agg(e), '{}') into ended
      from (select * from lane_ends order by id limit many) e;
    select array_agg(l.id) into looked from (
        select j.id from jobs j
         where j.id = any (array(  -- made once, and looked up: a join may read all that waits
            select d.id from jobs d
             where d.state in ('queued', 'parked') and not d.ready and d.publish_after <= now()
             order by d.publish_after limit many for update skip locked)
            || array(  -- the newest too: whoever came last is seen over any flood
            select d.id from jobs d
             where d.state in ('queued', 'parked') and not d.ready and d.publish_after <= now()
             order by d.publish_after desc limit many / 5 for update skip locked)
            || array(
            select w.id from unnest(ended) e
             cross join lateral baton_waiting(e.project_id, e.lane) w))
           and j.state in ('queued', 'parked') and j.ready is not true  -- as no index has it: by id
           for update skip locked) l;
    looked := coalesce(looked, '{}');
    if ended <> '{}' then
        delete from lane_ends e using unnest(ended) d  -- but for one whose first somebody holds
         where e.id = d.id and not exists (
            select from baton_waiting(d.project_id, d.lane) w
             where not w.ready and w.id <> all(looked));
    end if;
    if looked = '{}' then
        return;
    end if;
    perform baton_clear_way(looked);
    select array_agg(p.project_id) into free from (
        select p.project_id from projects p
         where p.project_id in (
            select j.project_id from jobs j where j.id = any(looked) and not j.announced)
           for no key update skip locked) p;
    select coalesce(array_agg(j.id), '{}') into able from jobs j
     where j.id = any(looked) and (j.announced or j.project_id = any(free)
            or not exists (select from projects p where p.project_id = j.project_id
                           offset 0));  -- by the index, job by job: else all projects are read
    select coalesce(array_agg(j.id), '{}') into first from jobs j
     where j.id = any(able) and j.run_at <= now()
       and baton_first(j.project_id, j.lane, j.chain_id, j.pos,
                       j.started_at is not null or j.id <> j.chain_id);

    update jobs j
       set ready = j.id = any(first), published_at = null,
           scheduled = j.scheduled and j.run_at > now(),
           publish_after = greatest(j.run_at, case
               when j.id = any(first) then j.publish_after
               when j.id = any(able) then now() + least(interval '1 hour',
                    greatest(again, now() - greatest(j.created_at, j.run_at)))
               else now() + again end)
     where j.id = any(looked) and j.state in ('queued', 'parked');
    perform baton_note_ready(
        (select array_agg(distinct j.user_id) from jobs j where j.id = any(first)));
    return query select * from baton_announce(looked, free);
end $$;

-- Something ended in a lane in which another chain waits. A trigger, so that no way to end a job can
-- forget it; the relay takes it from there.
create or replace function baton_lane_ended() returns trigger language plpgsql as $$
begin
    insert into lane_ends (project_id, lane)
    select new.project_id, new.lane
     where (select true from jobs j
             where (j.project_id, j.lane) >= (new.project_id, new.lane)
               and (j.project_id, j.lane) <= (new.project_id, new.lane)
               and j.finished_at is null and j.chain_id <> new.chain_id
             order by j.project_id, j.lane limit 1);
    return null;
end $$;

create or replace trigger jobs_ended after update of finished_at on jobs
    for each row when (old.finished_at is null and new.finished_at is not null)
    execute function baton_lane_ended();

-- The first that waits in a lane, unless its message is out: of those that have begun, of those
-- that were asked for, of those whose time has come. Each is a probe of an index, however long the
-- lane and its future are.
drop function if exists baton_waiting(text, text);
create or replace function baton_waiting(project text, line text)
returns table (id uuid, ready boolean) language sql stable as $$
    select w.id, w.ready from (
        select * from (
            (select d.id, d.ready, d.published_at, d.pos, true as begun from (
                select q.* from jobs q
                 where (q.project_id, q.lane) >= (project, line)
                   and (q.project_id, q.lane) <= (project, line) and q.finished_at is null
                   and (q.started_at is not null or q.id <> q.chain_id)
                   and q.state in ('queued', 'parked') and q.run_at <= now()
                 order by q.project_id, q.lane limit 20) d  -- of one chain, which is shorter
              order by d.pos limit 1)
            union all
            (select q.id, q.ready, q.published_at, q.pos, false from jobs q
              where (q.project_id, q.lane, q.pos) >= (project, line, 0)
                and (q.project_id, q.lane) <= (project, line) and q.finished_at is null
                and not q.scheduled
                and q.state in ('queued', 'parked') and q.run_at <= now()
              order by q.project_id, q.lane, q.pos limit 1)
            union all
            (select d.id, d.ready, d.published_at, d.pos, false from (
                select q.* from jobs q
                 where q.project_id = project and q.lane = line and q.finished_at is null
                   and q.scheduled and q.run_at <= now() and q.state in ('queued', 'parked')
                offset 0) d  -- by its time: what is still to come is not read
              order by d.pos limit 1)) f
         order by f.begun desc, f.pos limit 1) w
     where w.published_at is null
$$;

-- What the user says with a job, as the body of `chat.said`: the prompt of a request. Null: nothing new
-- is said: by what follows in a chain, by a retry, which repeats what was said before.
create or replace function baton_said(job uuid, chain uuid, kind text, retry_of uuid, args jsonb)
returns jsonb language sql immutable as $$
    select jsonb_build_object('kind', kind, 'chain', chain, 'role', 'user', 'text', args ->> 'prompt')
     where args ? 'prompt' and job = chain and retry_of is null
$$;

-- Write `job.queued` for those of the jobs that nobody has told of, and what their users said with
-- them, where the project is free.
drop function if exists baton_announce(uuid[], text[]);
create or replace function baton_announce(looked uuid[], free text[])
returns table (project_id text, seq bigint, job_id uuid, type text, body jsonb)
language sql volatile as $$
    with told as (
        update jobs j set announced = true
         where j.id = any(looked) and not j.announced and j.finished_at is null
           and j.project_id = any(free)
        returning j.id, j.project_id, j.pos, baton_said(j.id, j.chain_id, j.kind, j.retry_of, j.args) as said,
                  jsonb_build_object('kind', j.kind, 'chain', j.chain_id) as queued
    ), to_write as (
        select t.project_id, t.id, t.pos, x.n, x.type, x.body
          from told t cross join lateral (
               values (1, 'job.queued', t.queued), (2, 'chat.said', t.said)) x (n, type, body)
         where x.body is not null
    ), raised as (
        update projects p set event_seq = p.event_seq + n.n
          from (select project_id, count(*) as n from to_write group by 1) n
         where p.project_id = n.project_id
        returning p.project_id, p.event_seq - n.n as before
    )
    insert into events (project_id, seq, job_id, type, body)
    select r.project_id,
           r.before + row_number() over (partition by r.project_id order by w.pos, w.n),
           w.id, w.type, w.body
      from to_write w join raised r using (project_id)
    returning project_id, seq, job_id, type, body
$$;

-- Write down what these users' first ready jobs are now; of those who have none, that they have none.
create or replace function baton_note_ready(users text[]) returns void language sql volatile as $$
    insert into user_turns as u (user_id, priority, pos)
    select x.user_id, j.priority, j.pos
      from unnest(users) as x (user_id)
      left join lateral (
            select q.priority, q.pos from jobs q
             where q.user_id = x.user_id and q.state in ('queued', 'parked') and q.ready
             order by q.priority desc, q.pos limit 1) j on true
     order by x.user_id
        on conflict (user_id) do update set priority = excluded.priority, pos = excluded.pos
$$;

-- Choose up to `room` ready jobs, and note that their messages go out. The most urgent first; among
-- equals the user who has the fewest running or on their way, then who was served longest ago,
-- then the oldest request. No user gets more than `user_slots` (0: no limit), or the ledger's number.
-- A message that nobody claims is owed again after `pause`, twice that, … at most `longest`.
create or replace function baton_publish(
    room int, user_slots int, pause interval, longest interval
) returns table (id uuid, kind text, chain_id uuid, parent_id uuid, published int,
                 previous_session_id text)
language plpgsql as $$
#variable_conflict use_column
declare
    asked  text[];
    idle   text[];
    chosen uuid[];
    behind uuid[];
    most   constant int := baton_user_slots(user_slots);
begin
    if room <= 0 or not baton_my_turn() then
        return;
    end if;
    -- Nobody waits for the disk: if Postgres dies before this is on it, the messages are sent once more.
    perform set_config('synchronous_commit', 'off', true);
    loop
    with busy as (
        select b.user_id, count(*) as n from (
            select r.user_id from jobs r where r.state = 'running'
            union all
            select o.user_id from jobs o
             where o.published_at is not null and o.state in ('queued', 'parked')) b
         group by 1
    ), turns as (  -- among so many there are enough without work, if there are any:
                   -- exact as long as whoever has work running goes later (decision 5)
        select u.user_id, u.served_at, coalesce(b.n, 0) as n
          from (select * from user_turns t where t.priority is not null
                 order by t.priority desc, t.served_at nulls first, t.pos
                 limit room + (select count(*) from busy)) u
          left join busy b using (user_id)
    ), ranked as (
        select t.user_id, j.id, j.priority, j.pos, t.served_at, j.more, t.n + j.more as nth
          from turns t cross join lateral (
                select q.id, q.priority, q.pos,
                       row_number() over (order by q.priority desc, q.pos, q.id) as more
                  from jobs q
                 where q.user_id = t.user_id and q.state in ('queued', 'parked') and q.ready
                 order by q.priority desc, q.pos, q.id limit room) j  -- racers have one place
    )
    select (select array_agg(t.user_id) from turns t),
           (select array_agg(t.user_id) from turns t
             where t.user_id not in (select k.user_id from ranked k)),
           array_agg(r.id) into asked, idle, chosen
      from (select * from ranked
             where most = 0 or nth <= most
             order by priority desc, nth, more, served_at nulls first, pos, id limit room) r;
    exit when idle is null;
    perform baton_note_ready(idle);  -- what they had ready went another way
    end loop;

    select array_agg(j.id) into behind from jobs j  -- a slow producer's earlier request came in
     where j.id = any(chosen)
       and not baton_first(j.project_id, j.lane, j.chain_id, j.pos,
                           j.started_at is not null or j.id <> j.chain_id);
    update jobs j set ready = false, publish_after = now() + pause
     where j.id = any(behind) and j.ready is not false;

    return query
    with held as (
        select j.id, array_position(chosen, j.id) as nth from jobs j
         where j.id = any(chosen) and j.ready is not false and j.state in ('queued', 'parked')
           for update skip locked
    ), sent as (
        update jobs j
           set ready = false, published_at = now(), messages = j.messages + 1,
               published = j.published + 1,
               publish_after = now() + least(pause * power(2, least(j.published, 20)), longest)
          from held where j.id = held.id
        returning j.id, j.kind, j.chain_id, j.parent_id, j.messages - 1 as number,
                  j.previous_session_id, j.user_id, held.nth
    ), served as (
        insert into user_turns as u (user_id, served_at)
        select user_id, now() + max(nth) * interval '1 microsecond' from sent group by 1 order by 1
            on conflict (user_id) do update set served_at = excluded.served_at
    )
    select s.id, s.kind, s.chain_id, s.parent_id, s.number, s.previous_session_id
      from sent s order by s.nth;
    perform baton_note_ready(asked);
end $$;
