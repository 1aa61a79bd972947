-- Turns of a branch are told as such also when it was promoted, and turns of the main line
-- whose move is in no table any more (a month of the archive that was detached) are not.
-- was: c2551f8b54ca55b5eb27b669e73b9a888ef9e2f7007d4938ed123435ac5b6de1

alter table project_ai_session_metrics
    add column if not exists branch text;
comment on column project_ai_session_metrics.branch is
    'The branch that the session was of before it was promoted; null: none, or not known.';

create or replace view turn_costs as
select m.session_id, m.project_id, m.user_id, m.version_id, m.job_id, m.step,
       case when m.step in ('recommendations', 'documentation') then 'metadata'
            when m.step like 'compact%' then 'compaction'
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
         order by c.id limit 1) t on true
 where m.step is not null;

-- step: in batches of 1000 rows of project_ai_session_metrics by session_id
-- As far as the jobs are still there.
update project_ai_session_metrics m
   set branch = j.lane
  from jobs j
 where m.session_id between :first and :last
   and j.id = m.job_id and m.lane = 'main' and j.lane <> 'main';
