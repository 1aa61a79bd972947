with q as (
    select * from jobs
     where id = %(id)s and state in ('queued', 'parked') and run_at <= now()
       for update skip locked
), free as (
    select q.* from q
     where 
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
       and o.pos < q.pos and o.chain_id <> q.chain_id))
       and not exists (select from limits l
                        where l.credential = %(credential)s and l.until > now())
), h as (
    update projects p set event_seq = p.event_seq + case when free.announced then 1 else 2 end,
           workspace = coalesce(p.workspace, %(workspaces)s || '/' || p.project_id)
      from free
     where p.project_id = free.project_id and p.user_id = free.user_id
    returning p.project_id, p.event_seq, p.last_ai_session_id, p.workspace, p.fresh_next
), j as (
    update jobs set state = 'running', attempt = %(attempt)s, attempts = jobs.attempts + 1,
           lease_until = now() + %(lease)s, announced = true, published_at = null,
           published = 0, host = %(host)s, boot = %(boot)s, pid = %(pid)s,
           pid_started = %(pid_started)s, agent_pid = null, worker_id = %(worker_id)s,
           started_at = coalesce(jobs.started_at, now()), claimed_at = now(),
           credential = null
      from free, h
     where jobs.id = free.id
    returning jobs.*, free.announced as was_announced
), e as (
    insert into events (project_id, seq, job_id, type, body)
    select h.project_id, h.event_seq - x.back, j.id, x.type, x.body
      from h, j, lateral (values
        (1, 'job.queued', jsonb_build_object('kind', j.kind, 'chain', j.chain_id)),
        (0, 'job.started', jsonb_build_object('kind', j.kind, 'chain', j.chain_id,
                                              'attempt', j.attempts, 'host', j.host))
      ) as x (back, type, body)
     where x.back = 0 or not j.was_announced
)
select j.id, j.attempt, j.chain_id, j.parent_id, j.project_id, j.user_id, j.lane, j.kind,
       j.args, j.version_id, j.previous_session_id, j.attempts, j.rescues, j.result,
       h.last_ai_session_id as head, h.workspace, h.fresh_next, h.event_seq as seq
  from j, h
