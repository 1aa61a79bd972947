with looked as materialized (  -- without a lock: most are only looked at
    select q.id, q.project_id, q.lane, q.priority, q.pos, 
not exists (
    select from jobs o
     where o.project_id = q.project_id and o.lane = q.lane and o.state = 'running'
       and o.id <> q.id)
and not exists (
    select from jobs o
     where o.project_id = q.project_id and o.lane = q.lane and o.finished_at is null
       and (o.started_at is not null or o.id <> o.chain_id) and o.chain_id <> q.chain_id)
and (q.started_at is not null or q.id <> q.chain_id or not exists (
    select from jobs o
     where o.project_id = q.project_id and o.lane = q.lane and o.finished_at is null
       and o.pos < q.pos and o.chain_id <> q.chain_id)) as first
      from (select * from jobs
             where state in ('queued', 'parked') and publish_after <= now()
             order by priority desc, publish_after limit 500) q
), wanted as (
    (select id, true as first, 0 as place from looked where first
      order by priority desc, pos limit %(room)s)
    union all
    select id, false, row_number() over (partition by project_id, lane order by pos)
      from looked where not first
), held as (  -- what another relay has taken meanwhile is not due any more
    select jobs.id, wanted.first, wanted.place, jobs.announced as told
      from jobs join wanted using (id)
     where jobs.state in ('queued', 'parked') and jobs.publish_after <= now()
       for update of jobs skip locked
), blocked as (
    update jobs set publish_after = now() + least(%(look_again)s::interval * held.place, %(longest)s)
      from held where jobs.id = held.id and not held.first
), sent as (
    update jobs
       set publish_after = now() + least(%(pause)s::interval * power(2, least(published, 20)), %(longest)s),
           published = published + 1, published_at = now(), messages = messages + 1,
           announced = true
      from held where jobs.id = held.id and held.first
    returning jobs.id, kind, chain_id, parent_id, messages - 1 as published,
              previous_session_id, project_id, held.told, priority, pos
), untold as (
    select project_id, count(*) as n from sent where not told group by 1
),
ordered as (
    select p.project_id, untold.n from projects p join untold using (project_id)
     order by p.project_id for no key update of p
), h as (
    update projects p set event_seq = p.event_seq + ordered.n
      from ordered where p.project_id = ordered.project_id
    returning p.project_id, p.event_seq, ordered.n
), e as (
    insert into events (project_id, seq, job_id, type, body)
    select h.project_id, h.event_seq - h.n
               + row_number() over (partition by h.project_id order by sent.pos),
           sent.id, 'job.queued',
           jsonb_build_object('kind', sent.kind, 'chain', sent.chain_id)
      from sent join h on h.project_id = sent.project_id where not sent.told
)
select id, kind, chain_id, parent_id, published, previous_session_id from sent
 order by priority desc, pos
