-- What operators ask, and what is kept, as views.

-- Sessions whose transcripts are kept, and for what. Whatever comes to name a session for good adds
-- itself here: the clean-up asks nobody else.
create or replace view sessions_kept as
select project_id, last_ai_session_id as session_id, 'head' as kept_as
  from projects where last_ai_session_id is not null
union all
select project_id, ai_session_id, 'version'
  from project_versions where ai_session_id is not null
union all
select project_id, head, 'branch' from branches where promoted_at is null
union all
select project_id, from_session, 'branch' from branches where promoted_at is null;

-- Every move of every head, newest id last; archived ones included.
create or replace view session_chain as
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
create or replace view session_sync as
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

-- Each committed turn, and how its session began (a promotion is no turn):
--   first     there was no head          resumed    the head was forked
--   policy    fresh on purpose, reason   older      another session of the project was forked
--   fallback  fresh although it should   recovered  went on from a dead attempt's session
--             have resumed, reason
-- Of those that were to resume (all but first and policy), the rate is what did.
create or replace view resume_turns as
select project_id, version_id, job_id, source, reason, created_at,
       case when source = 'recovery' and coalesce(reason, '') not in ('check_failed', 'error_reported')
            then 'recovered'
            when old_session_id is null then 'first'
            when parent_session_id = old_session_id then 'resumed'
            when parent_session_id is not null then 'older'
            when source = 'reset' then 'policy'
            else 'fallback' end as began
  from session_chain
 where source not in ('operator', 'fork');

-- Why sessions that were looked at were not resumed, or failed when they were.
create or replace view resume_failures as
select session_id, project_id, job_id, step, outcome, coalesce(reason, 'unknown') as reason, at
  from session_resume_attempts
 where session_id is not null and outcome in ('rejected', 'failed', 'abandoned');

-- Each turn that made a session, with what it used; a branch's turns are told as such. Cost is its
-- own, in USD.
create or replace view turn_costs as
select m.session_id, m.project_id, m.user_id, m.version_id, m.job_id, m.step,
       case when m.step in ('recommendations', 'documentation') then 'metadata'
            when m.step like 'compact%' then 'compaction'
            when m.step like 'repair%' then 'repair'
            else m.step end as kind,
       coalesce(t.source, case when m.lane <> 'main' or m.branch is not null then 'branch' end,
                'unknown') as source, t.reason,
       m.resumed, m.cost_usd, m.cost_estimated, m.duration_ms,
       m.input_tokens, m.cache_creation_tokens, m.cache_read_tokens, m.output_tokens,
       m.created_at
  from project_ai_session_metrics m
  left join lateral (
        select c.source, c.reason from session_chain c
         where c.new_session_id = m.session_id and c.source not in ('operator', 'fork')
           and c.created_at >= m.created_at  -- no older month of the archive is looked into
         order by c.id limit 1) t on true
 where m.step is not null;
