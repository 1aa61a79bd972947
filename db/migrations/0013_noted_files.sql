-- What a fresh session is told of the project's files is noted with the session whose turn
-- left them so: of the main line and of branches alike. A rewind, a branch and a promotion
-- then tell the files of their own line, since the line of sessions is what they follow.
-- was: cff294bb97e15b475e8adb3ad1b6aa2d70b7c96914bf3cf638984432fd1e2ed9

alter table project_ai_session_metrics
    add column if not exists digest_files         jsonb,
    add column if not exists digest_documentation text;

comment on column project_ai_session_metrics.digest_files is
    'Names of the workspace''s files as the session''s turn left them, 200 at most; null: the turn wrote none.';
comment on column project_ai_session_metrics.digest_documentation is
    'The beginning of DOCUMENTATION.md at that time.';

-- Workers of before still write these while they are replaced, so they are not dropped.
comment on column project_versions.digest_files is
    'Not read any more: project_ai_session_metrics.digest_files.';
comment on column project_versions.digest_documentation is
    'Not read any more: project_ai_session_metrics.digest_documentation.';

-- step: in batches of 1000 rows of project_ai_session_metrics by session_id
-- A version's session is at its turn or after it, with the same files.
update project_ai_session_metrics m
   set digest_files = v.digest_files, digest_documentation = v.digest_documentation
  from project_versions v
 where m.session_id between :first and :last
   and v.digest_files is not null and v.project_id = m.project_id
   and v.ai_session_id = m.session_id;

-- step: in batches of 1000 rows of project_ai_session_metrics by session_id
-- Sessions of branches that were promoted before 0010 have no step back yet: each forked the
-- one before it. (A template's session, which new projects fork, is of another project.)
update project_ai_session_metrics m
   set old_session_id = m.parent_session_id
  from project_ai_session_metrics parent
 where m.session_id between :first and :last
   and m.old_session_id is null and m.step is not null
   and parent.session_id = m.parent_session_id and parent.project_id = m.project_id;
