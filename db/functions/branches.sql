-- Lines of work beside the main one: which lane a request is for, and which files it begins from.

-- The lane of a request: the branch whose newest session it names, else a new one from there. The
-- branch that is meant is held until the asker's transaction ends: against those who end it (`for
-- update`), not against the commits that move its head.
create or replace function baton_lane(project text, user_id text, from_session text, job uuid)
returns text language plpgsql as $$
#variable_conflict use_variable
declare
    known text;
begin
    if from_session is null then
        return 'main';
    end if;
    select b.lane into known from branches b
     where b.project_id = project and b.user_id = user_id and b.head = from_session
       and b.promoted_at is null and b.from_session <> b.head
     order by b.created_at limit 1
       for key share;
    if found then
        return known;
    end if;
    perform from branches b                       -- one from the middle of another branch
      where b.project_id = project and b.promoted_at is null
        and b.lane = (select m.lane from project_ai_session_metrics m
                       where m.session_id = from_session and m.project_id = project)
        for key share;
    if not exists (select from project_ai_session_metrics m
                    where m.session_id = from_session and m.project_id = project
                      and m.user_id = user_id and m.is_resumable) then
        if exists (select from project_ai_session_metrics m
                    where m.session_id = from_session and m.project_id = project
                      and m.user_id = user_id and m.lane <> 'main'
                      and not exists (select from branches b
                                       where b.project_id = project and b.lane = m.lane)) then
            perform baton_refuse('bad_branch',
                'branch_from is a session of a branch that was dropped: name one of `baton chain`.', 'branch_from');
        end if;
        perform baton_refuse('bad_branch',
            'branch_from is no session of this project that can be resumed: name one of `baton chain`.', 'branch_from');
    end if;
    return 'branch-' || job;
end $$;

-- What a branch cannot do: make a version, or begin where nobody knows the files.
create or replace function baton_check_branch(
    kind text, project text, version text, lane text, from_session text, job uuid
) returns void language plpgsql as $$
begin
    if lane <> 'main' and version is not null then
        perform baton_refuse('bad_version',
            'A branch makes no version before it is promoted: leave the version out.', 'version');
    end if;
    if lane = 'branch-' || job and kind <> 'chat_plan' and baton_tree_of(project, from_session) is null then
        perform baton_refuse('bad_branch',
            'Which files belong to that session is not known: build the project once, and branch from there.',
            'branch_from');
    end if;
end $$;

-- The lane in which a finished job is done again: the main line's once its branch is promoted.
create or replace function baton_lane_again(project text, lane text) returns text language plpgsql as $$
#variable_conflict use_variable
declare
    promoted timestamptz;
begin
    if lane = 'main' then
        return lane;
    end if;
    select b.promoted_at into promoted from branches b
     where b.project_id = project and b.lane = lane
       for key share;
    if not found then
        perform baton_refuse('bad_branch',
            'The branch of that job was dropped: ask for its work anew, from a session of `baton chain`.');
    end if;
    return case when promoted is null then lane else 'main' end;
end $$;

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
