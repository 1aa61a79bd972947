-- Branches: lines of work beside a project's main line, each in a lane of its own; and
-- templates: projects of the user `_template`, whose sessions new projects fork.
--
-- A branch begins from any session of its project and user, and moves a head of its own.
-- The project's head is moved by its main line only, or by a branch that is promoted.

create table branches (
    project_id   text not null,
    lane         text not null check (lane <> 'main'),
    user_id      text not null,
    from_session text not null,
    head         text not null,
    from_tree    text,
    tree         text,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    promoted_at  timestamptz,
    primary key (project_id, lane)
);
create index branches_head on branches (project_id, head);
comment on column branches.from_session is 'The session that the branch began from.';
comment on column branches.head is 'The newest session of the branch: what its next job forks.';
comment on column branches.from_tree is
    'Git commit of the project''s files as of the session that it began from.';
comment on column branches.tree is
    'Git commit of the branch''s own workspace as its newest turn left it; null: it wrote none.';
comment on column branches.promoted_at is
    'When its head became the project''s. No job is taken for it any more.';

drop view sessions_kept;
create view sessions_kept as
select project_id, last_ai_session_id as session_id, 'head' as kept_as
  from projects where last_ai_session_id is not null
union all
select project_id, ai_session_id, 'version'
  from project_versions where ai_session_id is not null
union all
select project_id, head, 'branch' from branches where promoted_at is null
union all
select project_id, from_session, 'branch' from branches where promoted_at is null;

alter table project_ai_session_metrics
    add column if not exists lane text not null default 'main';
comment on column project_ai_session_metrics.lane is
    'The line of work that the session is of: main, or a branch that was not promoted.';

-- The lane of a request: the branch whose newest session it names, else a new one from there.
create function baton_lane(project text, user_id text, from_session text, job uuid)
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
     order by b.created_at limit 1;
    if found then
        return known;
    end if;
    if not exists (select from project_ai_session_metrics m
                    where m.session_id = from_session and m.project_id = project
                      and m.user_id = user_id and m.is_resumable) then
        perform baton_refuse('branch_from is no session of this project that can be resumed: name one of `baton chain`.');
    end if;
    return 'branch-' || job;
end $$;

-- The files that belong to a session: as of its move of the head, else as its branch has them.
create function baton_tree_of(project text, session text) returns text language sql stable as $$
    select coalesce(
        (select t.tree from session_transitions t
          where t.project_id = project and t.new_session_id = session order by t.id desc limit 1),
        (select t.tree from session_transitions_archive t
          where t.project_id = project and t.new_session_id = session order by t.id desc limit 1),
        (select coalesce(b.tree, b.from_tree)
           from project_ai_session_metrics m
           join branches b on b.project_id = m.project_id and b.lane = m.lane
          where m.session_id = session and m.project_id = project),
        (select p.workspace_tree from projects p where p.project_id = project))
$$;

create function baton_check_template(project text, template text)
returns void language plpgsql as $$
#variable_conflict use_variable
begin
    if template is null then
        return;
    end if;
    if not exists (select from projects p where p.project_id = template
                      and p.user_id = '_template' and p.last_ai_session_id is not null) then
        perform baton_refuse(format(
            'There is no template %s: build a project of that name for the user _template first.',
            template));
    end if;
    if exists (select from projects p where p.project_id = project
                  and p.last_ai_session_id is not null) then
        perform baton_refuse('A template is for the first job of a project: leave it out.');
    end if;
end $$;

create or replace function baton_check_options(options jsonb) returns void language plpgsql as $$
declare
    unknown text;
    amount  constant text :=
        'max_turns must be a whole number from 1 to 100000 and budget an amount above 0 in USD.';
    turns   numeric;
begin
    if jsonb_typeof(options) <> 'object' then
        perform baton_refuse('options must be a JSON object.');
    end if;
    if octet_length(options::text) > 16384 then
        perform baton_refuse('The options are larger than 16 kB: put long text into the prompt.');
    end if;
    select o into unknown from jsonb_object_keys(options) as o
     where o not in ('model', 'max_turns', 'budget', 'workspace', 'on_lost', 'branch_from',
                     'template') limit 1;
    if unknown is not null then
        perform baton_refuse(format(
            'Unknown option %s: use model, max_turns, budget, workspace, on_lost, branch_from or template.',
            left(unknown, 60)));
    end if;
    turns := baton_number(options, 'max_turns', amount);
    if turns < 1 or turns > 100000 or turns <> trunc(turns)
            or baton_number(options, 'budget', amount) <= 0 then
        perform baton_refuse(amount);
    end if;
    if options ? 'model' and (jsonb_typeof(options -> 'model') <> 'string'
            or options ->> 'model' !~ '^[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,199}$') then
        perform baton_refuse('model must be the name of a model, such as sonnet.');
    end if;
    if coalesce(options ->> 'on_lost', 'fresh') not in ('fresh', 'ask') then
        perform baton_refuse('on_lost must be fresh or ask.');
    end if;
    if options ? 'workspace' then
        perform baton_check_workspace(options -> 'workspace');
    end if;
    if options ? 'template' then
        perform baton_check_name('The name of the template', options ->> 'template');
    end if;
    if options ->> 'branch_from' !~*
            '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then
        perform baton_refuse('branch_from is not a UUID: name a session of the project.');
    end if;
    if options ? 'branch_from' and options ? 'template' then
        perform baton_refuse('A branch begins from a session of its project: leave the template out.');
    end if;
end $$;

create or replace function baton_enqueue(
    kind                text,
    project             text,
    user_id             text,
    prompt              text default null,
    version             text default null,
    key                 text default null,
    busy                text default 'enqueue',
    priority            int default 0,
    run_at              timestamptz default null,
    previous_session_id text default null,
    options             jsonb default '{}',
    id                  uuid default null,
    publish_after       timestamptz default null,
    prompt_limit        int default 200000
) returns uuid language plpgsql as $$
#variable_conflict use_variable
declare
    job     uuid := coalesce(id, gen_random_uuid());
    digest  text;
    same    jobs;
    begin_at timestamptz := coalesce(run_at, now());
    lane    text;
begin
    kind := replace(kind, '-', '_');
    options := coalesce(options, '{}');
    priority := coalesce(priority, 0);
    digest := md5(jsonb_build_array(kind, user_id, prompt, version, busy, options)::text);
    perform baton_check_name('The project id', project);
    perform baton_check_user(user_id);
    perform baton_check_name('The version id', version) where version is not null;
    if length(key) > 200 or key = '' then
        perform baton_refuse('The key must be 1 to 200 characters.');
    end if;
    if previous_session_id is not null and previous_session_id !~*
            '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then
        perform baton_refuse('The previous session id is not a UUID: pass one that Baton gave, or none.');
    end if;
    if busy is null or busy not in ('enqueue', 'reject', 'replace', 'interrupt') then
        perform baton_refuse('busy must be enqueue, reject, replace or interrupt.');
    end if;
    perform baton_check_request(kind, prompt, coalesce(prompt_limit, 200000));
    perform baton_check_options(options);
    perform baton_check_project(kind, project, user_id, options ->> 'workspace');

    select * into same from jobs j                -- the same message or request again
     where j.id = id or (j.project_id = project and j.key = key)
     order by j.id is distinct from id limit 1;
    if found then
        return baton_same(same, project, digest);
    end if;
    perform baton_check_version(kind, project, version);

    lane := baton_lane(project, user_id, lower(options ->> 'branch_from'), job);
    perform baton_check_template(project, options ->> 'template');
    if lane <> 'main' and version is not null then
        perform baton_refuse('A branch makes no version before it is promoted: leave the version out.');
    end if;
    if lane = 'branch-' || job and kind <> 'chat_plan'
            and baton_tree_of(project, lower(options ->> 'branch_from')) is null then
        perform baton_refuse('Which files belong to that session is not known: build the project once, and branch from there.');
    end if;
    if busy <> 'enqueue' then
        perform baton_make_way(project, lane, busy);
    end if;
    perform baton_create_project(project, user_id, options ->> 'workspace');
    insert into jobs (id, chain_id, project_id, user_id, lane, kind, args, key, body_digest, priority,
                      version_id, previous_session_id, run_at, publish_after)
    values (job, job, project, user_id, lane, case kind when 'update' then 'build' else kind end,
            options || jsonb_strip_nulls(jsonb_build_object(
                'prompt', prompt, 'busy', busy, 'asked', kind)),
            key, digest, priority, version, lower(previous_session_id), begin_at,
            greatest(begin_at, coalesce(publish_after, now())))
    on conflict do nothing;
    if not found then                            -- another transaction was first with key or id
        select * into same from jobs j
         where j.id = job or (j.project_id = project and j.key = key)
         order by j.id <> job limit 1;
        return baton_same(same, project, digest);
    end if;
    if lane = 'branch-' || job then
        insert into branches (project_id, lane, user_id, from_session, head, from_tree)
        values (project, lane, user_id, lower(options ->> 'branch_from'),
                lower(options ->> 'branch_from'),
                baton_tree_of(project, lower(options ->> 'branch_from')));
    end if;
    return job;
end $$;

-- Whatever search_path its caller has, it works on the tables beside it.
do $$
begin
    execute format('alter function %s set search_path to %I, %s',
        (select p.oid::regprocedure from pg_proc p
          where p.proname = 'baton_enqueue' and p.pronamespace = current_schema()::regnamespace),
        current_schema(), current_setting('search_path'));
end $$;

drop function baton_make_way(text, text);

-- As before, of one lane: a branch makes no way in the main line, nor the other way round.
create function baton_make_way(project text, lane text, busy text) returns void language plpgsql as $$
#variable_conflict use_variable
begin
    perform pg_advisory_xact_lock(hashtextextended('baton:' || project, 0));
    if busy = 'reject' and exists (
            select from jobs j where j.project_id = project and j.lane = lane and j.finished_at is null) then
        perform baton_refuse('The project is busy: wait for its chain, or use busy=enqueue.');
    end if;
    if busy in ('replace', 'interrupt') then
        update jobs j
           set state = 'cancelled', finished_at = now(), untold = true,
               error_class = case when j.started_at is null and j.id = j.chain_id
                                  then 'replaced' else 'replaced_by_request' end,
               error = 'A newer request took its place.'
         where j.project_id = project and j.lane = lane and j.state in ('queued', 'parked')
           and (busy = 'interrupt' or (j.id = j.chain_id and j.started_at is null));
    end if;
end $$;

-- A promotion is no turn, and the turns of a branch are told as such.
create or replace view resume_turns as
select project_id, version_id, job_id, source, reason, created_at,
       case when source = 'recovery' then 'recovered'
            when old_session_id is null then 'first'
            when parent_session_id = old_session_id then 'resumed'
            when parent_session_id is not null then 'older'
            when source = 'reset' then 'policy'
            else 'fallback' end as began
  from session_chain
 where source not in ('operator', 'fork');
