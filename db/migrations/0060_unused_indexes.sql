-- Indexes that no statement of today needs. The statements of an older release do: without jobs_due each
-- look of its relay reads all that waits. So they go when all else is done.
-- when: after the functions

-- step: by itself
drop index concurrently if exists jobs_due;

-- step: by itself
drop index concurrently if exists jobs_lease;

-- step: by itself
drop index concurrently if exists turns_started;
