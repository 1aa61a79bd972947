-- What came before each session in its own line of work, and which files belong to it:
-- of the main line, of a branch, and of what a rewind has left behind.

alter table project_ai_session_metrics
    add column if not exists old_session_id text,
    add column if not exists tree           text;
comment on column project_ai_session_metrics.old_session_id is
    'The head of its lane that it replaced: the session told before it. Null: the line''s first.';
comment on column project_ai_session_metrics.tree is
    'Git commit of its lane''s workspace as of the session''s newest turn; null: not known.';

update project_ai_session_metrics m
   set old_session_id = c.old_session_id, tree = c.tree
  from (select distinct on (new_session_id) new_session_id, project_id, old_session_id, tree
          from (select id, new_session_id, project_id, old_session_id, tree, source
                  from session_transitions
                 union all
                select id, new_session_id, project_id, old_session_id, tree, source
                  from session_transitions_archive) every_move
         where source not in ('operator', 'fork')
         order by new_session_id, id) c
 where c.new_session_id = m.session_id and c.project_id = m.project_id;

-- Of branches only the newest session's files were known.
update project_ai_session_metrics m
   set old_session_id = coalesce(m.parent_session_id, b.from_session),
       tree = coalesce(b.tree, b.from_tree)
  from branches b
 where b.project_id = m.project_id and b.lane = m.lane and m.old_session_id is null;

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
