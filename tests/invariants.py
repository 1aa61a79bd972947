"""What must hold in the ledger at any moment, looked up in its tables.

`violations` is what the fault suite asks after every run; the numbers are those of the
invariants in docs/architecture.md. (1, 8 and 14 need the machine or Redis, and are looked at
where those are.)
"""

from typing import LiteralString

from psycopg import Connection

from worker.session.ladder import look

# Each query gives a line of text for each thing that is wrong.
ALWAYS: dict[str, LiteralString] = {
    "2: a job ends in one terminal state, told once": """
        select format('job %s is %s and was told to end %s times', j.id, j.state, n)
          from jobs j
          join projects p using (project_id)
          cross join lateral (
                select count(*) as n from events e where e.job_id = j.id and e.type in
                    ('job.done', 'job.failed', 'job.cancelled', 'job.quarantined')) told
         where p.user_id = j.user_id
           and n <> case when j.finished_at is not null and not j.untold then 1 else 0 end
        union all
        select format('job %s is %s and was told as %s', j.id, j.state, e.type)
          from jobs j join events e on e.job_id = j.id
         where e.type in ('job.done', 'job.failed', 'job.cancelled', 'job.quarantined')
           and e.type <> 'job.' || j.state""",
    "2: one job of a lane runs": """
        select format('%s jobs run in lane %s of %s', count(*), lane, project_id)
          from jobs where state = 'running' group by project_id, lane having count(*) > 1""",
    "2: no job waits in a lane that is no more": """
        select format('job %s is open in lane %s of %s, which is no open branch', j.id, j.lane,
                      j.project_id)
          from jobs j
         where j.lane <> 'main' and j.finished_at is null
           and not exists (select from branches b
                            where b.project_id = j.project_id and b.lane = j.lane
                              and b.promoted_at is null)""",
    "3: the head is the newest transition's session": """
        select format('project %s has the head %s and the newest transition %s', p.project_id,
                      p.last_ai_session_id, t.new_session_id)
          from projects p
          left join lateral (select new_session_id from session_chain c
                              where c.project_id = p.project_id
                              order by id desc limit 1) t on true
         where p.last_ai_session_id is distinct from t.new_session_id""",
    "4: a version's session is that of its newest transition": """
        select format('version %s of %s has the session %s and the newest transition %s',
                      v.version_id, v.project_id, v.ai_session_id, t.new_session_id)
          from project_versions v
          join lateral (select new_session_id from session_chain c
                         where c.project_id = v.project_id and c.version_id = v.version_id
                         order by id desc limit 1) t on true
         where v.ai_session_id is distinct from t.new_session_id""",
    "5: transitions form one path": """
        select format('transition %s of %s leaves %s, and the one before it came to %s',
                      id, project_id, old_session_id, before)
          from (select id, project_id, old_session_id, reason,
                       lag(new_session_id) over w as before, row_number() over w as n
                  from session_chain window w as (partition by project_id order by id)) path
         where old_session_id is distinct from before
           -- what a product wrote before us is not ours to judge
           and not exists (select from session_transitions a
                            where a.project_id = path.project_id and a.reason = 'adopted'
                              and a.id >= path.id)""",
    "6: every move is of a turn that was committed": """
        select format('transition %s of %s is of no committed turn of job %s',
                      c.id, c.project_id, c.job_id)
          from session_chain c join jobs j on j.id = c.job_id
         where not exists (select from turns t
                            where t.job_id = c.job_id and t.outcome = 'committed'
                              and t.observed_session_id = c.new_session_id)""",
    "6: every committed turn moved the head": """
        select format('turn %s of job %s is committed, and moved no head', t.id, t.job_id)
          from turns t
         where t.outcome = 'committed'
           and not exists (select from session_chain c
                            where c.job_id = t.job_id
                              and c.new_session_id = t.observed_session_id)
           and not exists (select from jobs j where j.id = t.job_id and j.lane <> 'main')""",
    "6: a session that was a head is in the registry": """
        select format('session %s was a head of %s and is not in its registry',
                      c.new_session_id, c.project_id)
          from session_chain c
         where c.job_id is not null
           and not exists (select from project_ai_session_metrics m
                            where m.session_id = c.new_session_id
                              and m.project_id = c.project_id)""",
    "7: a step is committed once": """
        select format('step %s of job %s is committed %s times', step, job_id, count(*))
          from turns where outcome = 'committed' group by job_id, step having count(*) > 1""",
    "9: the registry's costs are those of the committed turns": """
        select format('session %s cost %s in the registry and %s in its turns',
                      m.session_id, m.cost_usd, t.cost)
          from project_ai_session_metrics m
          join lateral (select sum(cost_usd) as cost, bool_or(cost_estimated) as estimated
                          from turns
                         where observed_session_id = m.session_id
                           and outcome = 'committed') t on t.cost is not null
         where m.cost_usd is distinct from t.cost or m.cost_estimated is distinct from t.estimated
        union all
        select format('session %s cost less than nothing', session_id)
          from project_ai_session_metrics where cost_usd < 0
        union all
        select format('session %s has no figure of the CLI, and its cost is not marked', session_id)
          from project_ai_session_metrics
         where raw_cost_usd is null and job_id is not null and not cost_estimated""",
    "10: a head is passed over for a reason, and the prompt stays": """
        select format('transition %s of %s passed the head over without a reason', id, project_id)
          from session_chain where source in ('fallback', 'reset', 'recovery') and reason is null
        union all
        select format('job %s has lost its prompt', id)
          from jobs where kind in ('build', 'chat_plan')  -- the others have none
                      and id = chain_id and coalesce(args ->> 'prompt', '') = ''
        union all
        select format('job %s tried %s and did not say why not', job_id, session_id)
          from session_resume_attempts
         where outcome in ('rejected', 'failed', 'abandoned') and reason is null""",
    "11: a session is gone on from by its own project and user": """
        select format('job %s of %s (%s) went on from %s of %s (%s)', j.id, j.project_id,
                      j.user_id, m.session_id, m.project_id, m.user_id)
          from turns t join jobs j on j.id = t.job_id
          join project_ai_session_metrics m on m.session_id = t.parent_session_id
          join projects p on p.project_id = m.project_id
         where (m.project_id <> j.project_id or m.user_id not in ('', j.user_id))
           and p.user_id <> '_template'""",
    "12: events are numbered without a gap": """
        select format('project %s has %s events and the number %s', p.project_id,
                      count(e.seq), p.event_seq)
          from projects p left join events e using (project_id)
         group by p.project_id, p.event_seq
        having count(e.seq) <> p.event_seq or coalesce(max(e.seq), 0) <> p.event_seq
            or coalesce(min(e.seq), 1) <> 1""",
}

HEADS: LiteralString = """
    select project_id, last_ai_session_id from projects where last_ai_session_id is not null"""

# What holds once nothing is left to do.
IN_THE_END: dict[str, LiteralString] = {
    "2: every job ends": """
        select format('job %s is still %s', id, state) from jobs where finished_at is null""",
    "2: every end is told": """
        select format('the end of job %s is not told', id) from jobs where untold""",
    "8: no turn is left open": """
        select format('turn %s of job %s is still running', id, job_id)
          from turns where outcome = 'running'""",
    "10: every try came to something": """
        select format('job %s is still trying %s', job_id, session_id)
          from session_resume_attempts where outcome = 'trying'""",
}


def violations(conn: Connection, *, ended: bool = False, stored: bool = False) -> list[str]:
    """A sentence for each thing that is wrong; none is as it should be.

    `ended`: nothing is left to do, so every job must have ended too. `stored`: the sessions
    are those of turns, not only of a ledger, so that each head must load (13).
    """
    found = list[str]()
    for name, query in (ALWAYS | IN_THE_END if ended else ALWAYS).items():
        found += [f"{name}: {text}" for (text,) in conn.execute(query)]
    for project, head in conn.execute(HEADS) if stored else ():
        if reason := look(conn, project, head).reason:
            found.append(f"13: a head loads: {head} of {project} does not ({reason})")
    return found
