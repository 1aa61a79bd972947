-- Which running jobs are which worker's: slots that may be used are free of their own jobs only, not of
-- those of workers that drain or whose credential is limited.
alter table workers add column if not exists worker_id text;
comment on column workers.worker_id is 'As jobs.worker_id names it.';
