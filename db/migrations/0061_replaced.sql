-- Whose place a request took: its job asks for that prompt. Without this it reads all that ended anywhere
-- since it was asked for.

-- step: by itself
create index concurrently if not exists jobs_replaced on jobs (project_id, lane, finished_at)
    where error_class = 'replaced_by_request';
