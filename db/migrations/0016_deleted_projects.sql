-- Other hosts ask receipts whether what they have left is of a deleted project, and a user's
-- deletion takes the user's projects too.

alter table deletions add column if not exists projects text[] not null default '{}';
comment on column deletions.projects is
    'Of each project that went: SHA-256 in hex of "<id of this row> project <its id>". Set when it has ended.';
