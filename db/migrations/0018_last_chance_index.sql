-- Of its own transaction: what reads jobs does not wait while it is built.

create unique index if not exists jobs_last_chance on jobs (worker_id)
    where state = 'running' and last_chance;
