-- What a fresh session is told of a version's files, also on a host that has none of them.

alter table project_versions
    add column if not exists digest_files         jsonb,
    add column if not exists digest_documentation text;

comment on column project_versions.digest_files is
    'Names of the workspace''s files as the version''s newest turn left them, 200 at most.';
comment on column project_versions.digest_documentation is
    'The beginning of DOCUMENTATION.md at that time.';
