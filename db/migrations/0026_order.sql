-- Order and fairness: the relay looks at each row once, keeps what is first in its lane ready, and
-- chooses among the ready by priority, then between users in turn, then by age.
-- was: 05f6d85f67477b5b91008492e83dd7e3ee8e45015a3c460e73fc47099a182e5d
-- was: ec04e787c8fefe28dd40e46b876f1cc0922b6c9eb1e27eb9bf7eae61fcc59bf6

alter table jobs
    add column if not exists scheduled boolean not null default false,
    add column if not exists ready     boolean not null default false;
comment on column jobs.scheduled is
    'Asked for a later time that has not come: until then it holds no place in its lane.';
comment on column jobs.ready is
    'First in its lane, and no message is out: the relay may choose it.';

create table user_turns (
    user_id   text primary key,
    served_at timestamptz,  -- when a job of the user's was last published
    priority  int,          -- of the user's first ready job; null: none is ready
    pos       bigint        -- and its place
);
create index user_turns_next on user_turns (priority desc, served_at nulls first, pos)
    where priority is not null;
comment on table user_turns is
    'Whose turn it is: a row a user who has ready jobs, or had some lately.';

create table lane_ends (
    id         bigint generated always as identity primary key,
    project_id text not null,
    lane       text not null
);
comment on table lane_ends is
    'Lanes in which something ended while others waited: the relay looks at the first of them, and '
    'takes the row away. Only ever inserted, so that nobody waits for a lock, and none is missed.';

create table relays (
    id         text primary key,
    host       text not null,
    boot       text not null,
    pid        int not null,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now()
);
comment on table relays is 'The relays that live, as they say themselves.';

-- step: by itself
-- What is to be looked at, and when: new rows, those whose time comes, messages that nobody claimed.
create index concurrently if not exists jobs_look on jobs (publish_after) where state in ('queued', 'parked') and not ready;

-- step: by itself
-- Each user's ready jobs, the most urgent and then the oldest first.
create index concurrently if not exists jobs_ready on jobs (user_id, priority desc, pos)
    where state in ('queued', 'parked') and ready;

-- step: by itself
create index concurrently if not exists jobs_running on jobs (user_id) where state = 'running';

-- step: by itself
-- The order of a lane, without those that hold no place in it yet; and those.
create index concurrently if not exists jobs_asked on jobs (project_id, lane, pos) where finished_at is null and not scheduled;

-- step: by itself
create index concurrently if not exists jobs_scheduled on jobs (project_id, lane, run_at)
    where finished_at is null and scheduled;

-- step: by itself
-- Asked by every running job each second: whether a newer request wants its lane.
create index concurrently if not exists jobs_interrupts on jobs (project_id, lane)
    where finished_at is null and started_at is null and args ->> 'busy' = 'interrupt';

-- step: by itself
create index concurrently if not exists jobs_parked on jobs (credential) where state = 'parked' and credential is not null;

-- step: in batches of 1000 rows of jobs by id
update jobs set scheduled = true
 where id between :first and :last
   and state = 'queued' and started_at is null and id = chain_id and run_at > now();
