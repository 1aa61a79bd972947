-- Deletions reach the projects' repositories on a server too, and the receipt says so.

alter table deletions add column if not exists remote_refs bigint not null default 0;
comment on column deletions.remote_refs is
    'Refs that were removed from projects'' repositories on the server of BATON_WORKSPACE_REMOTE.';
