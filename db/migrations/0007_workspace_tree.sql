-- Which files belong to a head: the git commit of the workspace, by id, whatever host made it.
-- was: 526d10c0b6fb70e2e3b196c1c756cd3c0a3388c4b526bcd029b6eeab35b6f5bc

alter table projects add column if not exists workspace_tree text;
alter table session_transitions add column if not exists tree text;
alter table session_transitions_archive add column if not exists tree text;

comment on column projects.workspace_tree is
    'Git commit of the workspace that the next attempt begins on, on whatever host; null: as it lies there.';
comment on column session_transitions.tree is
    'Git commit of the workspace as of this move of the head; null: not known.';

-- step: in batches of 1000 rows of session_transitions by id
-- Of the moves before this, those that were the last of a version had its tree.
update session_transitions t set tree = v.tree
  from project_versions v
 where t.id between :first and :last
   and v.project_id = t.project_id and v.ai_session_id = t.new_session_id
   and v.tree is not null and t.tree is null;
