with f as (
    select * from jobs
     where id = %(id)s and attempt = %(attempt)s and state = 'running'
       and lease_until > now() for update
), u as (  -- the turn, once: a step that is recorded is not recorded again
    select t.id from f join turns t on t.job_id = f.id
     where t.minted_session_id = %(minted)s and t.outcome in ('running', 'abandoned')
       and not exists (select from turns c where c.job_id = t.job_id and c.step = t.step
                                             and c.outcome = 'committed')
       for update of t
),
on_we_go as (
    select %(next_id)s::uuid is not null and 
case when j.cancel_requested_at is not null then 'cancel'
     when exists (select from jobs i
                   where i.project_id = j.project_id and i.lane = j.lane
                     and i.finished_at is null and i.id = i.chain_id and i.started_at is null
                     and i.run_at <= now()
                     and i.chain_id <> j.chain_id and i.args ->> 'busy' = 'interrupt')
     then 'interrupted' else 'go on' end = 'go on' as yes from f as j
), said as (
    select x.value, row_number() over (order by x.n) as n
      from on_we_go, jsonb_array_elements(%(events)s) with ordinality as x (value, n)
     where on_we_go.yes or %(next_id)s::uuid is null
        or x.value ->> 'job' is distinct from %(next_id)s::uuid::text
),
h as (
    update projects p
       set last_ai_session_id = %(new)s, last_ai_session_updated_at = now(),
           fresh_next = p.fresh_next and not %(was_fresh)s,
           event_seq = p.event_seq + (select count(*) from said)
      from f, u
     where p.project_id = f.project_id
       and p.last_ai_session_id is not distinct from %(old)s
    returning p.project_id, p.event_seq
), k as (
    select f.* from f, h
), d as (
    update jobs set result = coalesce(jobs.result, '{}') || %(result)s,
           state = case when %(final)s then 'done' else jobs.state end,
           finished_at = case when %(final)s then now() end,
           lease_until = case when %(final)s then null else jobs.lease_until end,
           version_id = coalesce(jobs.version_id, %(version_id)s),
           error_class = null, error = null
      from h where jobs.id = %(id)s
), v as (
    update project_versions v
       set ai_session_id = %(new)s, ai_session_last_used_at = now(),
           ai_session_created_at = coalesce(v.ai_session_created_at, now()),
           tree = coalesce(%(tree)s, v.tree)
      from h
     where v.project_id = h.project_id and v.version_id = %(version_id)s
    returning v.version_id
), nv as (
    insert into project_versions (project_id, version_id, tree, ai_session_id,
                                  ai_session_created_at, ai_session_last_used_at)
    select h.project_id, %(version_id)s, %(tree)s, %(new)s, now(), now()
      from h where %(new_version)s and not exists (select from v)
), t as (
    insert into session_transitions (project_id, version_id, old_session_id,
                                     new_session_id, parent_session_id, source, reason,
                                     job_id)
    select h.project_id, %(version_id)s, %(old)s, %(new)s, %(parent)s, %(source)s,
           %(reason)s, %(id)s
      from h
), pm as (
    select raw_cost_usd, turns_since_start from project_ai_session_metrics
     where session_id = %(parent)s limit 1
), figures as (  -- the parent's unknown figure is in ours: then the cost is a guess
    select coalesce(%(raw_cost_usd)s::numeric - case when pm.raw_cost_usd <= %(raw_cost_usd)s
                                                     then pm.raw_cost_usd else 0 end,
                    0) as cost,
           %(raw_cost_usd)s::numeric is null
               or (%(parent)s::text is not null and pm.raw_cost_usd is null) as estimated,
           case when %(compacted)s then 0 else coalesce(pm.turns_since_start, 0) + 1
           end as turns_since_start
      from (select 1) one left join pm on true
), om as (
    update project_ai_session_metrics m set status = 'disconnected'
      from h where m.session_id = %(old)s and m.project_id = h.project_id
               and m.status = 'active' and %(old)s <> %(new)s
), km as (  -- the same id again: it is touched, and what the turn used is added
    update project_ai_session_metrics m
       set last_used_at = now(), status = 'active', stale_at = null,
           version_id = coalesce(%(version_id)s, m.version_id),
           input_tokens = m.input_tokens + %(input_tokens)s,
           output_tokens = m.output_tokens + %(output_tokens)s,
           cache_read_tokens = m.cache_read_tokens + %(cache_read_tokens)s,
           cache_creation_tokens = m.cache_creation_tokens + %(cache_creation_tokens)s,
           context_tokens = %(context_tokens)s, cost_usd = m.cost_usd + figures.cost,
           cost_estimated = m.cost_estimated or figures.estimated,
           raw_cost_usd = coalesce(%(raw_cost_usd)s, m.raw_cost_usd),
           duration_ms = coalesce(m.duration_ms, 0) + coalesce(%(duration_ms)s, 0),
           num_turns = coalesce(m.num_turns, 0) + coalesce(%(num_turns)s, 0),
           turns_since_start = figures.turns_since_start,
           summary = coalesce(%(summary)s, m.summary)
      from h, figures where m.session_id = %(new)s and m.project_id = h.project_id
    returning session_id
), m as (
    insert into project_ai_session_metrics
           (session_id, project_id, user_id, version_id, parent_session_id, job_id, step,
            input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens,
            context_tokens, cost_usd, cost_estimated, raw_cost_usd, duration_ms, num_turns,
            turns_since_start, model, cli_version, resumed, summary)
    select %(new)s, k.project_id, k.user_id, %(version_id)s, %(parent)s, k.id, %(step)s,
           %(input_tokens)s, %(output_tokens)s, %(cache_read_tokens)s,
           %(cache_creation_tokens)s, %(context_tokens)s, figures.cost, figures.estimated,
           %(raw_cost_usd)s, %(duration_ms)s, %(num_turns)s, figures.turns_since_start,
           %(model)s, %(cli_version)s, %(parent)s::text is not null, %(summary)s
      from k, figures where not exists (select from km)
), c as (
    insert into project_chat_log_minimal
           (project_id, session_id, ai_session_id, role, content, job_id, created_at)
    select h.project_id, %(new)s, %(new)s, x.value ->> 'role', x.value ->> 'content', %(id)s,
           now() + x.n * interval '1 microsecond'  -- in the order of saying
      from h, jsonb_array_elements(%(chat)s) with ordinality as x (value, n) order by x.n
), cp as (
    insert into chat_plan_sessions (session_id, project_id, user_id, job_id)
    select %(new)s, k.project_id, k.user_id, k.id from k where %(chat_plan)s
        on conflict do nothing
), tu as (
    update turns set outcome = 'committed', observed_session_id = %(new)s,
           relation = %(relation)s, cost_usd = figures.cost,
           cost_estimated = figures.estimated, error_class = null,
           cli_version = %(cli_version)s, ended_at = now()
      from h, u, figures where turns.id = u.id
), r as (
    update session_resume_attempts a
       set outcome = case when a.session_id is null then 'fresh'
                          when %(relation)s = 'reset' then 'failed' else 'resumed' end,
           reason = case when a.session_id is not null and %(relation)s = 'reset'
                         then 'reset' else a.reason end
      from h
     where a.job_id = %(id)s and a.attempt = %(attempt)s and a.outcome = 'trying'
),
e as (
    insert into events (project_id, seq, job_id, type, body)
    select h.project_id, h.event_seq - (select count(*) from said) + x.n,
           (x.value ->> 'job')::uuid, x.value ->> 'type', x.value -> 'body'
      from h, said as x
),
n as (
    insert into jobs (id, chain_id, parent_id, project_id, user_id, lane, pos, kind, args,
                      priority, version_id, previous_session_id, publish_after, published_at,
                      published, messages, announced)
    select %(next_id)s, k.chain_id, k.id, k.project_id, k.user_id, k.lane, k.pos,
           %(next_kind)s, %(next_args)s, k.priority, coalesce(%(version_id)s, k.version_id),
           %(new)s, now() + %(publish_after)s, now(), 1, 1, true
      from k, on_we_go where on_we_go.yes
    returning id, kind, chain_id, parent_id, 0 as published, previous_session_id
),
waits as (
    select q.id, q.run_at from k, lateral (
        select q.id, q.run_at from jobs q
         where q.project_id = k.project_id and q.lane = k.lane
           and q.finished_at is null and q.id <> k.id
         order by (q.started_at is not null or q.id <> q.chain_id) desc, q.pos
         limit 1) q
     where %(wake)s and not exists (select from n)
), free as (
    select q.id from jobs q join waits using (id)
     where waits.run_at <= now() and q.state in ('queued', 'parked')
       for update of q skip locked
), w as (
    update jobs set publish_after = now() + %(publish_after)s, published_at = now(),
           published = published + 1, messages = messages + 1
      from free where jobs.id = free.id
    returning jobs.id, kind, chain_id, parent_id, messages - 1 as published,
              previous_session_id
)
select figures.cost, h.event_seq, m.id, m.kind, m.chain_id, m.parent_id, m.published,
       m.previous_session_id
  from h, figures
  left join (select * from n union all select * from w) m on %(final)s
