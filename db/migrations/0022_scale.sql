-- What is looked for among many rows is found by an index; each says by whom. They are built while
-- others work. Those of `jobs` cost a claim and a commit least: of an open job's row, or of few.

-- step: by itself
-- Deletion of a project. It says `collate "C"`, and nothing else finds this index: to whoever asks for
-- a lane it would look as good as the lane's own, until a flood of one project. The next one likewise.
create index concurrently if not exists jobs_project on jobs (project_id collate "C");

-- step: by itself
-- Deletion of a user.
create index concurrently if not exists jobs_user on jobs (user_id collate "C");

-- step: by itself
-- `baton jobs`: what is open, in the order of asking.
create index concurrently if not exists jobs_listed on jobs (pos) where finished_at is null;

-- step: by itself
-- `report health`: the job that has waited longest.
create index concurrently if not exists jobs_waiting on jobs (run_at) where state = 'queued';

-- step: by itself
-- `report health`: how many, and the newest of those that were set aside.
create index concurrently if not exists jobs_set_aside on jobs (state, finished_at)
    where state in ('parked', 'quarantined');

-- step: by itself
-- Deletion of a project.
create index concurrently if not exists turns_project on turns (project_id);

-- step: by itself
-- `report cost`: what came to nothing.
create index concurrently if not exists turns_in_vain on turns (started_at)
    where outcome in ('failed', 'abandoned');

-- step: by itself
-- Deletion of a project.
create index concurrently if not exists session_resume_attempts_project
    on session_resume_attempts (project_id);

-- step: by itself
-- `report cost`: the newest turns.
create index concurrently if not exists idx_ai_session_metrics_turns
    on project_ai_session_metrics (created_at) where step is not null;

-- step: by itself
-- Deletion of a user; as the next two.
create index concurrently if not exists idx_ai_session_metrics_user
    on project_ai_session_metrics (user_id);

-- step: by itself
create index concurrently if not exists idx_projects_user on projects (user_id);

-- step: by itself
create index concurrently if not exists idx_chat_plan_sessions_user on chat_plan_sessions (user_id);

-- step: by itself
create index concurrently if not exists branches_user on branches (user_id);

-- step: by itself
-- The newest run of each task.
create index concurrently if not exists ticks_newest on ticks (name, at);

-- step: by itself
-- Clean-up of revokes.
create index concurrently if not exists revoked_tasks_at on revoked_tasks (at);

-- step: in a transaction
-- `report resume`: the newest moves, also in the archive. Only clean-up writes there.
create index if not exists idx_session_transitions_archive_created
    on session_transitions_archive (created_at);
