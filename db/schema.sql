-- The schema of today: what db/migrations/ have come to. Made by `make schema`; nothing applies it.
--
-- Functions, and views as they are computed, stand in db/functions/. The months of
-- session_transitions_archive are made as they come, and are left out.

-- Whose a project is: the account whose key first used it. A project without a row is nobody's yet.
create table account_projects (
    project_id text not null,
    account_id text not null,
    created_at timestamptz not null default now(),
    constraint account_projects_pkey PRIMARY KEY (project_id)
);
CREATE INDEX account_projects_account ON account_projects USING btree (account_id);

-- Who asks over HTTP: a producer with keys of its own.
create table accounts (
    id              text not null,
    -- Tokens that voice may still use before topup_remaining is used; null: they are not limited.
    token_remaining bigint,
    topup_remaining bigint not null default 0,
    created_at      timestamptz not null default now(),
    constraint accounts_pkey PRIMARY KEY (id)
);

create table api_keys (
    id           bigint not null generated always as identity,
    account_id   text not null,
    -- SHA-256 in hex; the key itself is shown once and never kept.
    key_hash     text not null,
    name         text not null default ''::text,
    scopes       text[] not null default '{jobs}'::text[],
    created_at   timestamptz not null default now(),
    last_used_at timestamptz,
    revoked_at   timestamptz,
    -- From then on the key counts for nothing. Null: until it is revoked.
    expires_at   timestamptz,
    constraint api_keys_pkey PRIMARY KEY (id)
);
CREATE INDEX api_keys_account ON api_keys USING btree (account_id);
CREATE UNIQUE INDEX api_keys_hash ON api_keys USING btree (key_hash);

create table baton_migrations (
    name       text not null,
    digest     text not null,
    applied_at timestamptz not null default now(),
    constraint baton_migrations_pkey PRIMARY KEY (name)
);

-- Settings of the environment that hold for every door: the newest worker's, or those that were given to `baton migrate` (db/ledger_settings.py).
create table baton_settings (
    name  text not null,
    value jsonb not null,
    at    timestamptz not null default now(),
    constraint baton_settings_pkey PRIMARY KEY (name)
);

-- Each start of a beat; seen_at is when its scheduler last looked at what is due.
create table beats (
    id         uuid not null,
    host       text not null,
    pid        integer not null,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now(),
    constraint beats_pkey PRIMARY KEY (id)
);

create table branches (
    project_id   text not null,
    lane         text not null,
    user_id      text not null,
    -- The session that the branch began from.
    from_session text not null,
    -- The newest session of the branch: what its next job forks.
    head         text not null,
    -- Git commit of the project's files as of the session that it began from.
    from_tree    text,
    -- Git commit of the branch's own workspace as its newest turn left it; null: it wrote none.
    tree         text,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    -- When its head became the project's. No job is taken for it any more.
    promoted_at  timestamptz,
    constraint branches_pkey PRIMARY KEY (project_id, lane),
    constraint branches_lane_check CHECK (lane <> 'main'::text)
);
CREATE INDEX branches_head ON branches USING btree (project_id, head);
CREATE INDEX branches_used ON branches USING btree (updated_at) WHERE promoted_at IS NULL;
CREATE INDEX branches_user ON branches USING btree (user_id);

-- What happened in a call, numbered without a gap, for its page.
create table call_events (
    call text not null,
    seq  bigint not null,
    type text not null,
    body jsonb not null default '{}'::jsonb,
    at   timestamptz not null default now(),
    constraint call_events_pkey PRIMARY KEY (call, seq)
);

-- Practice calls. config_version 0: no configuration came yet.
create table calls (
    call            text not null,
    account_id      text not null,
    status          text not null default 'created'::text,
    reason          text,
    config          jsonb,
    config_version  integer not null default 0,
    applied_version integer not null default 0,
    stream_sid      text,
    event_seq       bigint not null default 0,
    created_at      timestamptz not null default now(),
    seen_at         timestamptz not null default now(),
    ended_at        timestamptz,
    constraint calls_pkey PRIMARY KEY (call),
    constraint calls_status_check CHECK (status = ANY (ARRAY['created'::text, 'waiting'::text, 'associated'::text, 'active'::text, 'ended'::text]))
);
CREATE INDEX calls_ended ON calls USING btree (ended_at) WHERE status = 'ended'::text;
CREATE INDEX calls_open ON calls USING btree (account_id) WHERE status <> 'ended'::text;
CREATE INDEX calls_seen ON calls USING btree (seen_at) WHERE status <> 'ended'::text;

create table chat_plan_sessions (
    session_id text not null,
    project_id text not null,
    user_id    text,
    job_id     uuid,
    created_at timestamptz not null default now(),
    constraint chat_plan_sessions_pkey PRIMARY KEY (session_id)
);
CREATE INDEX idx_chat_plan_sessions_project ON chat_plan_sessions USING btree (project_id);
CREATE INDEX idx_chat_plan_sessions_user ON chat_plan_sessions USING btree (user_id);

-- Each command of a check that came to an end: what it was, how it ended, what it printed.
create table checks (
    id           bigint not null generated always as identity,
    job_id       uuid not null,
    attempt      uuid not null,
    project_id   text not null,
    version_id   text,
    -- 0: after the request's own turn; n: after the n-th repair.
    round        integer not null,
    -- Which of the commands, in their order, from 1.
    number       integer not null,
    command      text not null,
    outcome      text not null,
    exit_status  integer,
    signal       integer,
    -- Why it was ended: timeout or limit; null: it ended by itself, or by the signal.
    reason       text,
    duration_ms  bigint not null,
    output_head  text not null,
    -- What follows what was left out after output_head; empty where nothing was.
    output_tail  text not null,
    output_bytes bigint not null,
    -- A digest of how it failed: the same failure again has the same. Null: it passed.
    failure      text,
    -- The git commit of the workspace that was checked.
    tree         text,
    -- The version's own files that the command has changed.
    changed      jsonb not null default '[]'::jsonb,
    at           timestamptz not null default now(),
    constraint checks_pkey PRIMARY KEY (id),
    constraint checks_job_id_round_number_key UNIQUE (job_id, round, number),
    constraint checks_outcome_check CHECK (outcome = ANY (ARRAY['passed'::text, 'failed'::text]))
);
CREATE INDEX checks_at ON checks USING btree (at);
CREATE INDEX checks_project ON checks USING btree (project_id);

-- One row a `baton delete`: how much of what went. It names nobody once it has ended.
create table deletions (
    id          uuid not null default gen_random_uuid(),
    what        text not null,
    -- SHA-256 in hex of "<id of this row> <what> <id of the project or user>".
    digest      text not null,
    host        text not null,
    began_at    timestamptz not null default now(),
    ended_at    timestamptz,
    -- Rows that were deleted, by table.
    rows        jsonb not null default '{}'::jsonb,
    files       bigint not null default 0,
    keys        bigint not null default 0,
    -- Until it has ended: of whom, and what is still to be removed. Its projects take no jobs.
    todo        jsonb,
    -- Refs that were removed from projects' repositories on the server of BATON_WORKSPACE_REMOTE.
    remote_refs bigint not null default 0,
    -- Of each project that went: SHA-256 in hex of "<id of this row> project <its id>". Set when it has ended.
    projects    text[] not null default '{}'::text[],
    constraint deletions_pkey PRIMARY KEY (id),
    constraint deletions_nothing_left CHECK ((ended_at IS NULL) = (todo IS NOT NULL)),
    constraint deletions_what_check CHECK (what = ANY (ARRAY['project'::text, 'user'::text]))
);
CREATE INDEX deletions_open ON deletions USING btree (began_at) WHERE ended_at IS NULL;

-- What happened, per project, numbered without a gap in commit order. Types: docs/events.md.
create table events (
    project_id text not null,
    seq        bigint not null,
    job_id     uuid,
    type       text not null,
    body       jsonb not null default '{}'::jsonb,
    at         timestamptz not null default now(),
    constraint events_pkey PRIMARY KEY (project_id, seq)
);

create table jobs (
    id                  uuid not null default gen_random_uuid(),
    chain_id            uuid not null,
    parent_id           uuid,
    retry_of            uuid,
    project_id          text not null,
    user_id             text not null,
    lane                text not null default 'main'::text,
    -- Order in the lane; the jobs of a chain share it, and a chain that has begun goes first.
    pos                 bigint not null generated by default as identity,
    kind                text not null,
    args                jsonb not null default '{}'::jsonb,
    key                 text,
    body_digest         text,
    priority            integer not null default 0,
    version_id          text,
    previous_session_id text,
    -- queued, running, parked (its credential is limited), done, failed, cancelled, quarantined (it killed its workers).
    state               text not null default 'queued'::text,
    attempt             uuid,
    attempts            integer not null default 0,
    rescues             integer not null default 0,
    run_at              timestamptz not null default now(),
    publish_after       timestamptz not null default now(),
    published           integer not null default 0,
    published_at        timestamptz,
    messages            integer not null default 0,
    announced           boolean not null default false,
    untold              boolean not null default false,
    lease_until         timestamptz,
    cancel_requested_at timestamptz,
    credential          text,
    host                text,
    boot                text,
    pid                 integer,
    pid_started         bigint,
    agent_pid           integer,
    worker_id           text,
    created_at          timestamptz not null default now(),
    started_at          timestamptz,
    claimed_at          timestamptz,
    finished_at         timestamptz,
    error_class         text,
    error               text,
    result              jsonb,
    uncounted           uuid,
    -- When its newest attempt was claimed, one more death of its worker would have set it aside.
    last_chance         boolean not null default false,
    -- Asked for a later time that has not come: until then it holds no place in its lane.
    scheduled           boolean not null default false,
    -- First in its lane, and no message is out: the relay may choose it.
    ready               boolean not null default false,
    -- Of a request: the address that is told when its chain has ended. Null: none, or it follows in a chain.
    callback_url        text,
    constraint jobs_pkey PRIMARY KEY (id),
    constraint fenced_when_running CHECK (state <> 'running'::text OR attempt IS NOT NULL),
    constraint finished_when_final CHECK ((finished_at IS NOT NULL) = (state = ANY (ARRAY['done'::text, 'failed'::text, 'cancelled'::text, 'quarantined'::text]))),
    constraint jobs_kind_check CHECK (kind = ANY (ARRAY['build'::text, 'metadata'::text, 'compaction'::text, 'chat_plan'::text])),
    constraint jobs_of_one_owner FOREIGN KEY (chain_id, project_id, user_id) REFERENCES jobs(id, project_id, user_id),
    constraint jobs_state_check CHECK (state = ANY (ARRAY['queued'::text, 'running'::text, 'parked'::text, 'done'::text, 'failed'::text, 'cancelled'::text, 'quarantined'::text])),
    constraint leased_when_running CHECK ((lease_until IS NOT NULL) = (state = 'running'::text)),
    constraint publish_after_can_be_read CHECK (publish_after >= '2000-01-01 00:00:00+00'::timestamptz AND publish_after <= '9999-12-31 00:00:00+00'::timestamptz) NOT VALID,
    constraint run_at_can_be_read CHECK (run_at >= '2000-01-01 00:00:00+00'::timestamptz AND run_at <= '9999-12-31 00:00:00+00'::timestamptz) NOT VALID
);
CREATE INDEX jobs_asked ON jobs USING btree (project_id, lane, pos) WHERE finished_at IS NULL AND NOT scheduled;
CREATE INDEX jobs_begun ON jobs USING btree (project_id, lane) WHERE finished_at IS NULL AND (started_at IS NOT NULL OR id <> chain_id);
CREATE INDEX jobs_chain ON jobs USING btree (chain_id);
CREATE INDEX jobs_finished ON jobs USING btree (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_interrupts ON jobs USING btree (project_id, lane) WHERE finished_at IS NULL AND started_at IS NULL AND (args ->> 'busy'::text) = 'interrupt'::text;
CREATE UNIQUE INDEX jobs_key ON jobs USING btree (project_id, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX jobs_lane ON jobs USING btree (project_id, lane) WHERE state = 'running'::text;
CREATE UNIQUE INDEX jobs_last_chance ON jobs USING btree (worker_id) WHERE state = 'running'::text AND last_chance;
CREATE INDEX jobs_listed ON jobs USING btree (pos) WHERE finished_at IS NULL;
CREATE INDEX jobs_look ON jobs USING btree (publish_after) WHERE (state = ANY (ARRAY['queued'::text, 'parked'::text])) AND NOT ready;
CREATE INDEX jobs_of_branches ON jobs USING btree (project_id, lane) WHERE lane <> 'main'::text;
CREATE INDEX jobs_open ON jobs USING btree (project_id, lane, pos) WHERE finished_at IS NULL;
CREATE INDEX jobs_out ON jobs USING btree (published_at) WHERE published_at IS NOT NULL AND (state = ANY (ARRAY['queued'::text, 'parked'::text]));
CREATE INDEX jobs_parked ON jobs USING btree (credential) WHERE state = 'parked'::text AND credential IS NOT NULL;
CREATE INDEX jobs_project ON jobs USING btree (project_id COLLATE "C");
CREATE INDEX jobs_racers ON jobs USING btree (finished_at) WHERE args ? 'racer'::text AND finished_at IS NOT NULL;
CREATE INDEX jobs_ready ON jobs USING btree (user_id, priority DESC, pos) WHERE (state = ANY (ARRAY['queued'::text, 'parked'::text])) AND ready;
CREATE INDEX jobs_replaced ON jobs USING btree (project_id, lane, finished_at) WHERE error_class = 'replaced_by_request'::text;
CREATE INDEX jobs_running ON jobs USING btree (user_id) WHERE state = 'running'::text;
CREATE INDEX jobs_scheduled ON jobs USING btree (project_id, lane, run_at) WHERE finished_at IS NULL AND scheduled;
CREATE INDEX jobs_set_aside ON jobs USING btree (state, finished_at) WHERE state = ANY (ARRAY['parked'::text, 'quarantined'::text]);
CREATE INDEX jobs_untold ON jobs USING btree (id) WHERE untold;
CREATE INDEX jobs_user ON jobs USING btree (user_id COLLATE "C");
CREATE INDEX jobs_version ON jobs USING btree (version_id) WHERE finished_at IS NULL AND version_id IS NOT NULL;
CREATE INDEX jobs_waiting ON jobs USING btree (run_at) WHERE state = 'queued'::text;
CREATE CONSTRAINT TRIGGER jobs_chain_ended AFTER UPDATE OF finished_at ON jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (old.finished_at IS NULL AND new.finished_at IS NOT NULL) EXECUTE FUNCTION baton_chain_ended();
CREATE TRIGGER jobs_ended AFTER UPDATE OF finished_at ON jobs FOR EACH ROW WHEN (old.finished_at IS NULL AND new.finished_at IS NOT NULL) EXECUTE FUNCTION baton_lane_ended();
CREATE TRIGGER jobs_race_claimed BEFORE UPDATE OF attempt ON jobs FOR EACH ROW WHEN (new.state = 'running'::text AND old.state <> 'running'::text AND new.args ?| ARRAY['race'::text, 'racer'::text]) EXECUTE FUNCTION baton_races_only();
CREATE TRIGGER jobs_racer_ended AFTER UPDATE OF finished_at ON jobs FOR EACH ROW WHEN (old.finished_at IS NULL AND new.finished_at IS NOT NULL AND new.args ? 'racer'::text) EXECUTE FUNCTION baton_racer_ended();

-- Lanes in which something ended while others waited: the relay looks at the first of them, and takes the row away. Only ever inserted, so that nobody waits for a lock, and none is missed.
create table lane_ends (
    id         bigint not null generated always as identity,
    project_id text not null,
    lane       text not null,
    constraint lane_ends_pkey PRIMARY KEY (id)
);

-- Credentials that may not be used now: their jobs are parked.
create table limits (
    credential text not null,
    until      timestamptz not null,
    reason     text not null,
    created_at timestamptz not null default now(),
    constraint limits_pkey PRIMARY KEY (credential)
);

-- Browsers and phones that are, or lately were, connected to a gateway.
create table live_connections (
    conn           uuid not null,
    project_id     text not null,
    user_id        text not null,
    tab            text,
    gateway        text not null,
    status         text not null default 'active'::text,
    created_at     timestamptz not null default now(),
    last_active_at timestamptz not null default now(),
    constraint live_connections_pkey PRIMARY KEY (conn),
    constraint live_connections_status_check CHECK (status = ANY (ARRAY['active'::text, 'disconnected'::text, 'expired'::text]))
);
CREATE INDEX live_connections_project ON live_connections USING btree (project_id);
CREATE INDEX live_connections_seen ON live_connections USING btree (last_active_at);
CREATE INDEX live_connections_user ON live_connections USING btree (user_id) WHERE status = 'active'::text;

-- The session registry: whose each session is, what its turn used and cost, whether it can be resumed.
create table project_ai_session_metrics (
    session_id            text not null,
    project_id            text not null,
    user_id               text,
    version_id            text,
    parent_session_id     text,
    job_id                uuid,
    step                  text,
    status                text not null default 'active'::text,
    created_at            timestamptz not null default now(),
    last_used_at          timestamptz not null default now(),
    input_tokens          bigint not null default 0,
    output_tokens         bigint not null default 0,
    cache_read_tokens     bigint not null default 0,
    cache_creation_tokens bigint not null default 0,
    -- Tokens of the conversation at the end of the turn: what the next turn begins with.
    context_tokens        bigint not null default 0,
    -- Cost of this session's own turn: the CLI's cumulative figure less the parent's.
    cost_usd              numeric not null default 0,
    -- The CLI's figure as it was read: cumulative over resume and fork.
    raw_cost_usd          numeric,
    cost_estimated        boolean not null default false,
    duration_ms           bigint,
    num_turns             integer,
    turns_since_start     integer not null default 1,
    model                 text,
    cli_version           text,
    resumed               boolean not null default false,
    is_resumable          boolean not null default true,
    resume_failure_count  integer not null default 0,
    -- When the session was found too old to resume; it stays resumable for an operator.
    stale_at              timestamptz,
    summary               text,
    -- The line of work that the session is of: main, or a branch that was not promoted.
    lane                  text not null default 'main'::text,
    -- The head of its lane that it replaced: the session told before it. Null: the line's first.
    old_session_id        text,
    -- Git commit of its lane's workspace as of the session's newest turn; null: not known.
    tree                  text,
    -- Names of the workspace's files as the session's turn left them, 200 at most; null: the turn wrote none.
    digest_files          jsonb,
    -- The beginning of DOCUMENTATION.md at that time.
    digest_documentation  text,
    -- The branch that the session was of before it was promoted; null: none, or not known.
    branch                text,
    constraint project_ai_session_metrics_pkey PRIMARY KEY (session_id),
    constraint session_status_known CHECK (status = ANY (ARRAY['active'::text, 'disconnected'::text, 'expired'::text])) NOT VALID
);
CREATE INDEX idx_ai_session_metrics_project ON project_ai_session_metrics USING btree (project_id, created_at);
CREATE INDEX idx_ai_session_metrics_session ON project_ai_session_metrics USING btree (session_id);
CREATE INDEX idx_ai_session_metrics_stale ON project_ai_session_metrics USING btree (last_used_at) WHERE stale_at IS NULL;
CREATE INDEX idx_ai_session_metrics_turns ON project_ai_session_metrics USING btree (created_at) WHERE step IS NOT NULL;
CREATE INDEX idx_ai_session_metrics_user ON project_ai_session_metrics USING btree (user_id);

create table project_chat_log_minimal (
    id            bigint not null generated always as identity,
    project_id    text not null,
    -- The session in which the message was said: for a chat, one of chat_plan_sessions.
    session_id    text,
    -- The agent session whose transcript holds the message.
    ai_session_id text,
    role          text,
    content       text,
    job_id        uuid,
    created_at    timestamptz not null default now(),
    constraint project_chat_log_minimal_pkey PRIMARY KEY (id)
);
CREATE INDEX idx_chat_log_project ON project_chat_log_minimal USING btree (project_id, created_at);
CREATE INDEX idx_chat_log_session ON project_chat_log_minimal USING btree (ai_session_id);

-- The check of a project, for every build that names none itself; an empty list: none.
create table project_checks (
    project_id text not null,
    commands   jsonb not null,
    set_at     timestamptz not null default now(),
    constraint project_checks_pkey PRIMARY KEY (project_id)
);

create table project_versions (
    id                      bigint not null generated always as identity,
    version_id              text,
    project_id              text not null,
    status                  text not null default 'built'::text,
    -- Git commit that holds the workspace as this version left it.
    tree                    text,
    -- Latest agent session ID for this version; updated after each build, metadata and compact operation.
    ai_session_id           text,
    ai_session_created_at   timestamptz,
    ai_session_last_used_at timestamptz,
    created_at              timestamptz not null default now(),
    -- Not read any more: project_ai_session_metrics.digest_files.
    digest_files            jsonb,
    -- Not read any more: project_ai_session_metrics.digest_documentation.
    digest_documentation    text,
    -- What its newest check came to: unchecked, passing or failing. Baton's own: status is the product's.
    check_status            text not null default 'unchecked'::text,
    constraint project_versions_pkey PRIMARY KEY (id)
);
CREATE INDEX idx_project_versions_project ON project_versions USING btree (project_id, version_id);
CREATE INDEX idx_project_versions_session ON project_versions USING btree (ai_session_id);

create table projects (
    project_id                 text not null,
    user_id                    text not null,
    -- Absolute path of the workspace; null until the first job: BATON_WORKSPACES/<project_id>.
    workspace                  text,
    -- The head: the absolute latest agent session of the project, moved by every operation.
    last_ai_session_id         text,
    last_ai_session_updated_at timestamptz,
    -- Number of the newest event. Raised in the transaction of the change an event tells.
    event_seq                  bigint not null default 0,
    -- An operator asked that the next turn begin a fresh session.
    fresh_next                 boolean not null default false,
    created_at                 timestamptz not null default now(),
    -- Git commit of the workspace that the next attempt begins on, on whatever host; null: as it lies there.
    workspace_tree             text,
    constraint projects_pkey PRIMARY KEY (project_id)
);
CREATE INDEX idx_projects_user ON projects USING btree (user_id);
CREATE INDEX projects_places ON projects USING btree (workspace COLLATE "C");

-- Celery messages of which no job was made, and why. code: unknown_task, no_task, unreadable, plain_off, or that of a refusal (docs/jobs.md).
create table refused_messages (
    task_id text not null,
    task    text not null,
    code    text not null,
    error   text not null,
    times   integer not null default 1,
    at      timestamptz not null default now(),
    constraint refused_messages_pkey PRIMARY KEY (task_id)
);
CREATE INDEX refused_messages_at ON refused_messages USING btree (at);

-- The relays that live, as they say themselves.
create table relays (
    id         text not null,
    host       text not null,
    boot       text not null,
    pid        integer not null,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now(),
    constraint relays_pkey PRIMARY KEY (id)
);

-- Revokes, kept until the job is there to be cancelled: a worker that takes the message of a revoked task makes its row as cancelled.
create table revoked_tasks (
    job_id     uuid not null,
    at         timestamptz not null default now(),
    applied_at timestamptz,
    constraint revoked_tasks_pkey PRIMARY KEY (job_id)
);
CREATE INDEX revoked_tasks_at ON revoked_tasks USING btree (at);
CREATE INDEX revoked_tasks_open ON revoked_tasks USING btree (at) WHERE applied_at IS NULL;

create table session_resume_attempts (
    id         bigint not null generated always as identity,
    job_id     uuid not null,
    attempt    uuid not null,
    project_id text not null,
    session_id text,
    step       text not null default ''::text,
    -- trying: the prompt was sent on a fork of it; resumed or failed: how that ended; fresh: no session was resumed; rejected: not tried, reason says why; abandoned: the attempt died before it was known.
    outcome    text not null,
    reason     text,
    at         timestamptz not null default now(),
    constraint session_resume_attempts_pkey PRIMARY KEY (id),
    constraint session_resume_attempts_outcome_check CHECK (outcome = ANY (ARRAY['trying'::text, 'resumed'::text, 'fresh'::text, 'rejected'::text, 'failed'::text, 'abandoned'::text]))
);
CREATE INDEX session_resume_attempts_at ON session_resume_attempts USING btree (at);
CREATE INDEX session_resume_attempts_job ON session_resume_attempts USING btree (job_id);
CREATE INDEX session_resume_attempts_project ON session_resume_attempts USING btree (project_id);
CREATE INDEX session_resume_attempts_session ON session_resume_attempts USING btree (session_id);

-- Every move of a project's head, one path per project: audit trail of agent sessions.
create table session_transitions (
    id                bigint not null generated always as identity,
    project_id        text not null,
    version_id        text,
    -- The head that was replaced.
    old_session_id    text,
    new_session_id    text not null,
    source            text not null,
    created_at        timestamptz not null default now(),
    -- The session that was forked; null: the new one began fresh.
    parent_session_id text,
    reason            text,
    job_id            uuid,
    -- Git commit of the workspace as of this move of the head; null: not known.
    tree              text,
    constraint session_transitions_pkey PRIMARY KEY (id),
    constraint session_transitions_source_known CHECK (source = ANY (ARRAY['build'::text, 'update'::text, 'metadata'::text, 'compact'::text, 'chat_plan'::text, 'fallback'::text, 'recovery'::text, 'reset'::text, 'fork'::text, 'operator'::text])) NOT VALID
);
CREATE INDEX idx_session_transitions_created ON session_transitions USING btree (created_at);
CREATE INDEX idx_session_transitions_new_session ON session_transitions USING btree (new_session_id);
CREATE INDEX idx_session_transitions_project ON session_transitions USING btree (project_id, id);

-- Transitions past their time, a partition a month of created_at (UTC): the audit is never lost.
create table session_transitions_archive (
    id                bigint not null,
    project_id        text not null,
    version_id        text,
    old_session_id    text,
    new_session_id    text not null,
    parent_session_id text,
    source            text not null,
    reason            text,
    job_id            uuid,
    created_at        timestamptz not null,
    archived_at       timestamptz not null default now(),
    tree              text,
    constraint session_transitions_months_pkey PRIMARY KEY (id, created_at)
) partition by RANGE (created_at);
CREATE INDEX idx_session_transitions_archive_created ON ONLY session_transitions_archive USING btree (created_at);
CREATE INDEX idx_session_transitions_archive_new_session ON ONLY session_transitions_archive USING btree (new_session_id);
CREATE INDEX idx_session_transitions_archive_project ON ONLY session_transitions_archive USING btree (project_id, id);

-- Voice sessions: what is replayed when the provider has closed or died.
create table sessions (
    account_id text not null,
    session_id text not null,
    type       text not null default 'realtime'::text,
    -- The session.update to replay, as the provider accepted it last; null: it never accepted one.
    data       jsonb,
    -- The conversation, as items to create again, the oldest first.
    items      jsonb not null default '[]'::jsonb,
    updated_at timestamptz not null default now(),
    constraint sessions_pkey PRIMARY KEY (account_id, session_id)
);
CREATE INDEX sessions_seen ON sessions USING btree (updated_at);

-- Tickets and their cookies that were given back before their time.
create table signed_out (
    id    text not null,
    until timestamptz not null,
    constraint signed_out_pkey PRIMARY KEY (id)
);

-- What turns that have ended cost on a day (UTC): of a project, of a user, and (both empty) of all.
create table spent_by_day (
    day        date not null,
    project_id text not null default ''::text,
    user_id    text not null default ''::text,
    usd        numeric not null,
    turns      integer not null,
    constraint spent_by_day_pkey PRIMARY KEY (day, project_id, user_id)
);

-- Each period of each periodic job is claimed here once, however many beats there are.
create table ticks (
    name     text not null,
    period   bigint not null,
    at       timestamptz not null default now(),
    ended_at timestamptz,
    result   jsonb,
    constraint ticks_pkey PRIMARY KEY (name, period)
);
CREATE INDEX ticks_newest ON ticks USING btree (name, at);

-- One row an append, in order of id: which entries it added to the session, in order.
create table transcript_batches (
    id         bigint not null generated always as identity,
    project_id text not null,
    session_id text not null,
    subpath    text not null default ''::text,
    -- Ids in transcript_entries at which runs of consecutive ids begin, in order.
    starts     bigint[] not null,
    -- How many consecutive ids each run has.
    runs       integer[] not null,
    -- The fields that a fork changes: zlib-compressed JSON, name -> [[count, value], ...] over the batch's entries; [count] alone where the field is absent.
    "overlay"  bytea not null,
    entries    integer not null,
    -- Size of the bodies before compression and sharing.
    bytes      bigint not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint transcript_batches_pkey PRIMARY KEY (id),
    constraint transcript_batches_not_empty CHECK (entries > 0),
    constraint transcript_batches_runs CHECK (cardinality(starts) = cardinality(runs))
);
CREATE INDEX transcript_batches_session ON transcript_batches USING btree (project_id, session_id, subpath, id);
CREATE TRIGGER transcript_batches_changed AFTER UPDATE ON transcript_batches REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION transcript_note_removal();
CREATE TRIGGER transcript_batches_deleted AFTER DELETE ON transcript_batches REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION transcript_note_removal();
CREATE TRIGGER transcript_batches_truncated AFTER TRUNCATE ON transcript_batches FOR EACH STATEMENT EXECUTE FUNCTION transcript_note_removal();

-- The bodies of transcript entries, each once per project, whichever sessions hold it.
create table transcript_entries (
    id         bigint not null generated always as identity,
    project_id text not null,
    -- BLAKE2b-128 of the body before compression, its top-level keys sorted.
    digest     bytea not null,
    -- The entry's own uuid (a digest of it when it is no uuid), null when it has none: an entry with one goes into a session once.
    uuid       uuid,
    -- The entry as JSON without the fields that a fork changes, zlib-compressed. Not jsonb: entries may hold NUL characters and lone surrogates, and key order reaches the model.
    body       bytea not null,
    constraint transcript_entries_pkey PRIMARY KEY (id),
    constraint transcript_entries_digest_length CHECK (octet_length(digest) = 16),
    constraint transcript_entries_once UNIQUE (project_id, digest)
);
CREATE INDEX transcript_entries_uuid ON transcript_entries USING btree (project_id, uuid) WHERE uuid IS NOT NULL;
CREATE TRIGGER transcript_entries_changed AFTER UPDATE ON transcript_entries REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION transcript_note_removal();
CREATE TRIGGER transcript_entries_deleted AFTER DELETE ON transcript_entries REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION transcript_note_removal();
CREATE TRIGGER transcript_entries_truncated AFTER TRUNCATE ON transcript_entries FOR EACH STATEMENT EXECUTE FUNCTION transcript_note_removal();

-- The last transaction that removed or changed entries or batches of a project; the project '' stands for all of them (a truncate).
create table transcript_removals (
    project_id text not null,
    xact       xid8 not null,
    constraint transcript_removals_pkey PRIMARY KEY (project_id)
);

-- One row a transcript: a session's own (subpath empty) and those of its sub-agents.
create table transcript_sessions (
    project_id  text not null,
    session_id  text not null,
    subpath     text not null default ''::text,
    -- How many entries the transcript has. A load that finds another number says so.
    entries     integer not null,
    -- Size of the bodies before compression and sharing.
    bytes       bigint not null,
    -- The newest append, in transcript_batches: with it the row's fingerprint changes.
    last_batch  bigint not null,
    -- Digest of the newest append as it came: an append tried again is recognised by it.
    last_digest bytea not null,
    -- The SDK's own running summary, kept as it is; null for sub-agents. Not jsonb: see body.
    summary     json,
    created_at  timestamptz not null default clock_timestamp(),
    updated_at  timestamptz not null default clock_timestamp(),
    constraint transcript_sessions_pkey PRIMARY KEY (project_id, session_id, subpath)
);

create table turns (
    id                  bigint not null generated always as identity,
    job_id              uuid not null,
    attempt             uuid not null,
    project_id          text not null,
    step                text not null,
    parent_session_id   text,
    minted_session_id   text not null,
    observed_session_id text,
    relation            text,
    outcome             text not null default 'running'::text,
    error_class         text,
    cost_usd            numeric,
    cost_estimated      boolean not null default false,
    cli_version         text,
    started_at          timestamptz not null default now(),
    ended_at            timestamptz,
    -- The head that the turn is to replace, as it was.
    old_session_id      text,
    -- Set where the head was passed over: the source of the move that this turn would make.
    source              text,
    -- Why the session that it began from was not the head.
    reason              text,
    -- SHA-256 in hex of the token that its agent was given.
    token_hash          text,
    -- What its agent may spend at the model; null: no limit.
    budget_usd          numeric,
    -- What the egress proxy has counted against the budget, by its own list of prices.
    spent_usd           numeric,
    -- How much of its cost is in spent_by_day; null: it is not there yet.
    counted_usd         numeric,
    constraint turns_pkey PRIMARY KEY (id),
    constraint turns_outcome_check CHECK (outcome = ANY (ARRAY['running'::text, 'committed'::text, 'failed'::text, 'abandoned'::text])),
    constraint turns_relation_check CHECK (relation = ANY (ARRAY['fresh'::text, 'continued'::text, 'rolled'::text, 'forked'::text, 'reset'::text]))
);
CREATE INDEX turns_in_vain ON turns USING btree (started_at) WHERE outcome = ANY (ARRAY['failed'::text, 'abandoned'::text]);
CREATE INDEX turns_job ON turns USING btree (job_id, id);
CREATE INDEX turns_project ON turns USING btree (project_id);
CREATE UNIQUE INDEX turns_step_once ON turns USING btree (job_id, step) WHERE outcome = 'committed'::text;
CREATE UNIQUE INDEX turns_token ON turns USING btree (token_hash) WHERE outcome = 'running'::text;
CREATE INDEX turns_uncounted ON turns USING btree (started_at) WHERE counted_usd IS DISTINCT FROM GREATEST(cost_usd, spent_usd, 0::numeric);
CREATE TRIGGER turns_gone AFTER DELETE ON turns REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION baton_count_gone();

-- When each user asked for jobs in the last minute. Written where BATON_USER_RATE is set.
create table user_asks (
    user_id text not null,
    asked   timestamptz[] not null,
    constraint user_asks_pkey PRIMARY KEY (user_id)
);

-- Whose turn it is: a row a user who has ready jobs, or had some lately.
create table user_turns (
    user_id   text not null,
    served_at timestamptz,
    priority  integer,
    pos       bigint,
    constraint user_turns_pkey PRIMARY KEY (user_id)
);
CREATE INDEX user_turns_next ON user_turns USING btree (priority DESC, served_at NULLS FIRST, pos) WHERE priority IS NOT NULL;

-- What each response used. A charge that is tried again is made once.
create table voice_charges (
    id         uuid not null,
    account_id text not null,
    session_id text not null,
    tokens     bigint not null,
    at         timestamptz not null default now(),
    constraint voice_charges_pkey PRIMARY KEY (id),
    constraint voice_charges_tokens_check CHECK (tokens >= 0)
);
CREATE INDEX voice_charges_account ON voice_charges USING btree (account_id, at);
CREATE INDEX voice_charges_at ON voice_charges USING btree (at);

-- The outbox of webhooks: a row a chain that has ended and whose request named an address.
create table webhooks (
    chain_id   uuid not null,
    project_id text not null,
    user_id    text not null,
    url        text not null,
    host       text not null,
    state      text not null default 'waiting'::text,
    -- Since when it is tried: a day later it is given up.
    since      timestamptz not null default now(),
    try_at     timestamptz not null default now(),
    -- Somebody is sending it; after this they have died, and it is anybody's again.
    held_until timestamptz,
    tries      integer not null default 0,
    ended_at   timestamptz,
    -- What was answered last, as HTTP says it; null: nothing.
    status     integer,
    error      text,
    constraint webhooks_pkey PRIMARY KEY (chain_id),
    constraint webhooks_of_their_chain FOREIGN KEY (chain_id, project_id, user_id) REFERENCES jobs(id, project_id, user_id),
    constraint webhooks_state_check CHECK (state = ANY (ARRAY['waiting'::text, 'delivered'::text, 'given_up'::text]))
);
CREATE INDEX webhooks_due ON webhooks USING btree (host, try_at) WHERE state = 'waiting'::text;
CREATE INDEX webhooks_held ON webhooks USING btree (host) WHERE held_until IS NOT NULL;
CREATE INDEX webhooks_project ON webhooks USING btree (project_id);
CREATE INDEX webhooks_undelivered ON webhooks USING btree (since DESC) WHERE state <> 'delivered'::text;
CREATE INDEX webhooks_user ON webhooks USING btree (user_id);

create table workers (
    id          text not null,
    host        text not null,
    pid         integer not null,
    slots       integer not null,
    box         text,
    cli_version text,
    credential  text,
    started_at  timestamptz not null default now(),
    seen_at     timestamptz not null default now(),
    -- As jobs.worker_id names it.
    worker_id   text,
    constraint workers_pkey PRIMARY KEY (id)
);

-- view resume_failures
--     session_id text
--     project_id text
--     job_id uuid
--     step text
--     outcome text
--     reason text
--     at timestamptz

-- view resume_turns
--     project_id text
--     version_id text
--     job_id uuid
--     source text
--     reason text
--     created_at timestamptz
--     began text

-- view session_chain
--     id bigint
--     project_id text
--     version_id text
--     old_session_id text
--     new_session_id text
--     parent_session_id text
--     source text
--     reason text
--     job_id uuid
--     created_at timestamptz

-- view session_sync
--     project_id text
--     user_id text
--     last_ai_session_id text
--     last_ai_session_updated_at timestamptz
--     version_id text
--     version_session_id text
--     newest_transition text
--     sync_status text

-- view sessions_kept
--     project_id text
--     session_id text
--     kept_as text

-- view turn_costs
--     session_id text
--     project_id text
--     user_id text
--     version_id text
--     job_id uuid
--     step text
--     kind text
--     source text
--     reason text
--     resumed boolean
--     cost_usd numeric
--     cost_estimated boolean
--     duration_ms bigint
--     input_tokens bigint
--     cache_creation_tokens bigint
--     cache_read_tokens bigint
--     output_tokens bigint
--     created_at timestamptz
