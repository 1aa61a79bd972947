-- What operators ask, as views.

-- Every move of every head, newest id last; archived ones included.
create view session_chain as
select id, project_id, version_id, old_session_id, new_session_id, parent_session_id,
       source, reason, job_id, created_at
  from session_transitions
union all
select id, project_id, version_id, old_session_id, new_session_id, parent_session_id,
       source, reason, job_id, created_at
  from session_transitions_archive;

-- Is each project in step? The head must be the newest transition's new session, and
-- the newest version's session that of the newest transition which carries the version.
-- A project without versions or sessions is in step; a chat may move the head on.
create view session_sync as
select p.project_id, p.user_id, p.last_ai_session_id, p.last_ai_session_updated_at,
       v.version_id, v.ai_session_id as version_session_id,
       t.new_session_id as newest_transition,
       case when p.last_ai_session_id is not distinct from t.new_session_id
             and (v.version_id is null or vt.new_session_id is null
                  or v.ai_session_id is not distinct from vt.new_session_id)
            then 'SYNCED' else 'OUT_OF_SYNC' end as sync_status
  from projects p
  left join lateral (
        select * from session_chain c
         where c.project_id = p.project_id order by c.id desc limit 1) t on true
  left join lateral (
        select * from project_versions pv
         where pv.project_id = p.project_id and pv.version_id is not null
         order by pv.created_at desc, pv.id desc limit 1) v on true
  left join lateral (
        select * from session_chain c
         where c.project_id = p.project_id and c.version_id = v.version_id
         order by c.id desc limit 1) vt on true;

-- Of the turns that had a session to resume: how many did, and why the others did not.
create view resume_outcomes as
select coalesce(reason, case outcome when 'resumed' then 'resumed' else outcome end) as reason,
       outcome, count(*) as attempts, max(at) as latest
  from session_resume_attempts
 where session_id is not null and outcome <> 'trying'
 group by 1, 2;

-- Turns with and without a resumed session; the fresh ones of the rollout's remainder
-- (source reset, reason control) are the control sample.
create view session_costs as
select m.resumed, coalesce(t.source, 'other') as source, count(*) as turns,
       sum(m.cost_usd) as cost_usd, avg(m.cost_usd) as cost_usd_mean,
       percentile_cont(0.5) within group (order by m.duration_ms) as duration_ms_p50,
       sum(m.input_tokens + m.cache_creation_tokens) as new_tokens,
       sum(m.cache_read_tokens) as cached_tokens,
       sum(m.output_tokens) as output_tokens
  from project_ai_session_metrics m
  left join session_chain t on t.new_session_id = m.session_id and t.source <> 'operator'
 group by 1, 2;
