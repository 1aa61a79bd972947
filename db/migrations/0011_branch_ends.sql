-- A branch ends: promoted, dropped by an operator, or after a time without use. Whoever asks
-- for a job of it and whoever ends it take turns on its row, so no job is left without a branch.
-- was: 5553978e2f28f5f58dbdf76c6c917370f6bed3e5bf1c041a4ad3838ee1cdbfe6

-- As in 0008, and the branch that is meant is held until the asker's transaction ends: against
-- those who end it (`for update`), not against the commits that move its head.
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
            perform baton_refuse('branch_from is a session of a branch that was dropped: name one of `baton chain`.');
        end if;
        perform baton_refuse('branch_from is no session of this project that can be resumed: name one of `baton chain`.');
    end if;
    return 'branch-' || job;
end $$;

-- The lane in which a finished job is done again: the main line's once its branch is promoted.
create function baton_lane_again(project text, lane text) returns text language plpgsql as $$
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
        perform baton_refuse('The branch of that job was dropped: ask for its work anew, from a session of `baton chain`.');
    end if;
    return case when promoted is null then lane else 'main' end;
end $$;

-- step: by itself
create index concurrently if not exists branches_used on branches (updated_at) where promoted_at is null;

-- step: by itself
create index concurrently if not exists jobs_of_branches on jobs (project_id, lane) where lane <> 'main';
