"""A ledger that has worked for months, made up by Postgres itself: as large as it is asked for.

Every project has as many builds as any other: the oldest are in the archive and their jobs are
gone, others have ended within a month, some wait. Each build forked the session of the one before
it. All of it is as a fleet would have left it: the invariants hold (tests/invariants.py).

Without `modern` only columns and tables of the oldest schema are filled.
"""

from dataclasses import asdict, dataclass
from typing import LiteralString

from psycopg import Connection
from psycopg.types.numeric import Int8


@dataclass(frozen=True, slots=True)
class Amount:
    """How many projects; and of each how many builds that are archived, done and queued."""

    projects: int
    archived: int = 2
    done: int = 10
    queued: int = 10

    @property
    def jobs(self) -> int:
        return self.projects * (self.done + self.queued)


def fill(conn: Connection, amount: Amount, *, modern: bool = True) -> None:
    """Fill an empty ledger, and have the planner know of it."""
    params = {name: Int8(n) for name, n in asdict(amount).items()}
    with conn.transaction():
        conn.execute("set local synchronous_commit to off")
        for statement in FILL:
            if text := statement if modern else _of_the_oldest(statement).strip():
                conn.execute(text.encode(), params, prepare=False)  # query: of FILL
    conn.execute("vacuum analyze")


def _of_the_oldest(statement: str) -> str:
    """Without the lines that name what came later."""
    return "\n".join(line for line in statement.splitlines() if "-- modern" not in line)


# Who, which session after which, when. The month of finished jobs has 29 days, so that nothing
# is due to be cleared; what is archived is of the first days of one month before, so that no part
# of the archive is so small that it is read whole.
BUILDS: LiteralString = """
    create temporary table builds on commit drop as
    select p, k, 'project-' || p as project_id, 'user-' || p %% (1 + %(projects)s / 4) as user_id,
           'v' || k as version_id, md5('job ' || p || ' ' || k)::uuid as id,
           md5('session ' || p || ' ' || k)::uuid::text as session_id,
           case when k > 0 then md5('session ' || p || ' ' || k - 1)::uuid::text end as old,
           md5('tree ' || p || ' ' || k) || '00000000' as tree,
           1 + k * %(projects)s::bigint + p as number,
           case when k < %(archived)s
                then date_trunc('month', now() - interval '52 days', 'UTC') + interval '9 days'
                     * ((k * %(projects)s::float8 + p) / (%(archived)s * %(projects)s))
                else now() - interval '29 days' * (1 - ((k - %(archived)s) * %(projects)s::float8 + p)
                                                       / (%(done)s * %(projects)s)) end as at
      from generate_series(0, %(archived)s + %(done)s - 1) k,
           generate_series(0, %(projects)s - 1) p
     order by k, p"""

FILL: tuple[LiteralString, ...] = (
    BUILDS,
    "analyze builds",
    """
    insert into projects (project_id, user_id, workspace, last_ai_session_id,
                          last_ai_session_updated_at, created_at, event_seq
        , workspace_tree -- modern
        )
    select project_id, user_id, '/srv/workspaces/' || project_id, session_id, at,
           at - interval '90 days', 4 * (k + 1)
        , tree -- modern
      from builds where k = %(archived)s + %(done)s - 1 order by p""",
    """
    insert into project_versions (version_id, project_id, tree, ai_session_id,
                                  ai_session_created_at, ai_session_last_used_at, created_at)
    select version_id, project_id, tree, session_id, at, at, at from builds order by k, p""",
    """
    select baton_archive_month(month) -- modern
      from (select distinct date_trunc('month', at, 'UTC') as month -- modern
              from builds where k < %(archived)s) months -- modern""",
    """
    insert into session_transitions_archive
           (id, project_id, version_id, old_session_id, new_session_id, parent_session_id, source,
            job_id, created_at
        , tree -- modern
        )
    select number, project_id, version_id, old, session_id, old,
           case when k = 0 then 'build' else 'update' end, id, at
        , tree -- modern
      from builds where k < %(archived)s order by k, p""",
    """
    insert into session_transitions
           (id, project_id, version_id, old_session_id, new_session_id, parent_session_id, source,
            job_id, created_at
        , tree -- modern
        )
        overriding system value
    select number, project_id, version_id, old, session_id, old,
           case when k = 0 then 'build' else 'update' end, id, at
        , tree -- modern
      from builds where k >= %(archived)s order by k, p""",
    """
    select setval(pg_get_serial_sequence('session_transitions', 'id'), max(number)) from builds""",
    """
    insert into project_ai_session_metrics
           (session_id, project_id, user_id, version_id, parent_session_id, job_id, step, status,
            created_at, last_used_at, input_tokens, output_tokens, cache_read_tokens,
            cache_creation_tokens, context_tokens, cost_usd, raw_cost_usd, duration_ms, num_turns,
            model, cli_version, resumed, stale_at
        , old_session_id, tree -- modern
        )
    select session_id, project_id, user_id, version_id, old, id, 'build',
           case when k = %(archived)s + %(done)s - 1 then 'active' else 'disconnected' end,
           at, at, 900, 700, 20000, 1500, 23000, 0.25, 0.25 * (k + 1), 60000 + p %% 60000, 12,
           'claude-opus-4-5', '2.1.327', k > 0, case when at < now() - interval '1 day' then now() end
        , old, tree -- modern
      from builds order by k, p""",
    """
    insert into project_chat_log_minimal (project_id, session_id, ai_session_id, role, content,
                                          job_id, created_at)
    select project_id, session_id, session_id, 'user', 'Make the header blue.', id, at
      from builds order by k, p""",
    """
    insert into events (project_id, seq, job_id, type, body, at)
    select project_id, 4 * k + n, id, type,
           jsonb_build_object('kind', 'build', 'chain', id, 'session', session_id), at
      from builds, (values (1, 'job.queued'), (2, 'job.started'), (3, 'session.moved'),
                           (4, 'job.done')) told (n, type)
     order by k, p, n""",
    """
    insert into jobs (id, chain_id, project_id, user_id, pos, kind, args, version_id, state,
                      attempt, attempts, run_at, publish_after, announced, host, pid, worker_id,
                      created_at, started_at, claimed_at, finished_at, result)
    select id, id, project_id, user_id, number, 'build',
           '{"prompt": "Make the header blue.", "busy": "enqueue", "asked": "build"}', version_id,
           'done', id, 1, at - interval '2 min', at - interval '2 min', true, 'host', 1, 'worker',
           at - interval '2 min', at - interval '1 min', at - interval '1 min', at,
           '{"files_created": ["index.html"]}'
      from builds where k >= %(archived)s order by k, p""",
    """
    insert into jobs (id, chain_id, project_id, user_id, pos, kind, args, run_at, publish_after,
                      created_at)
    select id, id, project_id, user_id, number, 'build',
           '{"prompt": "Make it green.", "busy": "enqueue", "asked": "build"}', at, at, at
      from (select 'project-' || p as project_id, 'user-' || p %% (1 + %(projects)s / 4) as user_id,
                   md5('waiting ' || p || ' ' || k)::uuid as id,
                   (1000 + k) * %(projects)s::bigint + p as number,
                   now() - interval '1 h' + k * interval '1 s' as at
              from generate_series(0, %(queued)s - 1) k, generate_series(0, %(projects)s - 1) p
             order by k, p) waiting""",
    """
    select setval(pg_get_serial_sequence('jobs', 'pos'), max(pos)) from jobs""",
    """
    insert into turns (job_id, attempt, project_id, step, parent_session_id, minted_session_id,
                       observed_session_id, relation, outcome, cost_usd, cli_version, started_at,
                       ended_at
        , old_session_id -- modern
        )
    select id, id, project_id, 'build', old, session_id, session_id,
           case when k = 0 then 'fresh' else 'forked' end, 'committed', 0.25, '2.1.327',
           at - interval '1 min', at
        , old -- modern
      from builds where k >= %(archived)s order by k, p""",
    """
    insert into turns (job_id, attempt, project_id, step, parent_session_id, minted_session_id,
                       outcome, error_class, cost_usd, started_at, ended_at)
    select id, id, project_id, 'build', old, 'failed ' || session_id, 'failed', 'overloaded', 0.05,
           at - interval '2 min', at - interval '1 min'
      from builds where k >= %(archived)s and p %% 20 = 0 order by k, p""",
    """
    insert into session_resume_attempts (job_id, attempt, project_id, session_id, step, outcome,
                                         reason, at)
    select id, id, project_id, case when n = 0 then old else 'failed ' || old end, 'build',
           case when old is null then 'fresh' when n = 0 then 'resumed' else 'rejected' end,
           case when n = 1 then 'stale' end, at - interval '1 min'
      from builds, generate_series(0, 1) n
     where n = 0 or p %% 20 = 0 and old is not null order by k, p""",
    """
    insert into transcript_entries (project_id, digest, uuid, body)
    select project_id, decode(md5(session_id), 'hex'), md5(session_id)::uuid,
           decode(repeat(md5(session_id), 4), 'hex')
      from builds order by k, p""",
    """
    with batch as (
        insert into transcript_batches (project_id, session_id, starts, runs, overlay, entries,
                                        bytes)
        select b.project_id, b.session_id, array[e.id], array[1], '\\x00', 1, 4000
          from builds b join transcript_entries e
            on e.project_id = b.project_id and e.digest = decode(md5(b.session_id), 'hex')
         order by k, p
        returning project_id, session_id, id
    )
    insert into transcript_sessions (project_id, session_id, entries, bytes, last_batch,
                                     last_digest, updated_at)
    select b.project_id, b.session_id, 1, 4000, batch.id, '\\x00', b.at
      from batch join builds b using (project_id, session_id)""",
    """
    insert into workers (id, host, pid, slots, credential)
    select 'worker-' || n, 'host-' || n, n, 2, 'credential' from generate_series(1, 50) n""",
)
