with f as (
    select id from jobs
     where id = %(job)s and attempt = %(attempt)s and state = 'running'
       for key share
), tries as (
    insert into session_resume_attempts
           (job_id, attempt, project_id, session_id, step, outcome, reason)
    select f.id, %(attempt)s, %(project)s, x.value ->> 'session', %(step)s,
           x.value ->> 'outcome', x.value ->> 'reason'
      from f, jsonb_array_elements(%(tries)s) with ordinality as x (value, n)
     order by x.n
)
insert into turns (job_id, attempt, project_id, step, parent_session_id,
                   minted_session_id)
select f.id, %(attempt)s, %(project)s, %(step)s, %(parent)s, %(minted)s from f
