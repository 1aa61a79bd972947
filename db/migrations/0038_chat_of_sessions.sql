-- step: by itself
-- Whether a session has chat, asked of each session of a line that is told to a fresh one.
create index concurrently if not exists idx_chat_log_session
    on project_chat_log_minimal (ai_session_id);
