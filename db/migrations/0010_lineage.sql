-- What came before each session in its own line of work, and which files belong to it:
-- of the main line, of a branch, and of what a rewind has left behind.
-- was: 2da1d05e91a5f743e8741d868f22a650dad8d8b63907b2f0aabab9e6369e32a3

alter table project_ai_session_metrics
    add column if not exists old_session_id text,
    add column if not exists tree           text;
comment on column project_ai_session_metrics.old_session_id is
    'The head of its lane that it replaced: the session told before it. Null: the line''s first.';
comment on column project_ai_session_metrics.tree is
    'Git commit of its lane''s workspace as of the session''s newest turn; null: not known.';

-- The files that belong to a session: as of its newest turn; else as of its move of the head.
create or replace function baton_tree_of(project text, session text)
returns text language sql stable as $$
    select coalesce(
        (select m.tree from project_ai_session_metrics m
          where m.session_id = session and m.project_id = project),
        (select t.tree from session_transitions t
          where t.project_id = project and t.new_session_id = session order by t.id desc limit 1),
        (select t.tree from session_transitions_archive t
          where t.project_id = project and t.new_session_id = session order by t.id desc limit 1),
        (select p.workspace_tree from projects p where p.project_id = project))
$$;

-- step: in batches of 1000 rows of project_ai_session_metrics by session_id
-- As it was first moved to.
update project_ai_session_metrics m
   set old_session_id = c.old_session_id, tree = c.tree
  from project_ai_session_metrics s
 cross join lateral (
       select project_id, old_session_id, tree
         from (select id, new_session_id, project_id, old_session_id, tree, source
                 from session_transitions where new_session_id = s.session_id
                union all
               select id, new_session_id, project_id, old_session_id, tree, source
                 from session_transitions_archive where new_session_id = s.session_id) every_move
        where source not in ('operator', 'fork')
        order by id limit 1) c
 where s.session_id between :first and :last
   and m.session_id = s.session_id and c.project_id = m.project_id;

-- step: in batches of 1000 rows of project_ai_session_metrics by session_id
-- Of branches only the newest session's files were known.
update project_ai_session_metrics m
   set old_session_id = coalesce(m.parent_session_id, b.from_session),
       tree = coalesce(b.tree, b.from_tree)
  from branches b
 where m.session_id between :first and :last
   and b.project_id = m.project_id and b.lane = m.lane and m.old_session_id is null;
