-- Nobody waits while it is built.
-- was: f077d8b15efd4598bb4cc099a81985d4168f36a031bad2f1fbdc177070a52464

-- step: by itself
create unique index concurrently if not exists jobs_last_chance on jobs (worker_id)
    where state = 'running' and last_chance;
