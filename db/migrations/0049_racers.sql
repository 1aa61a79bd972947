-- Those of races that have ended, for the clean-up of their branches (db/projects/branches.py).

-- step: by itself
create index concurrently if not exists jobs_racers on jobs (finished_at)
 where args ? 'racer' and finished_at is not null;
