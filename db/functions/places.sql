-- Whose a directory is: no two projects have their workspaces in one, nor one inside the other's.
--
-- A place is compared as its path below the root of workspaces: `shop` for BATON_WORKSPACES/shop. A
-- project that was given no place, or one below another root, has that of its id. All places that
-- touch each other begin with the same name, so whoever is given one holds that name, alone; who
-- takes the place of a new id shares it.

-- The root of workspaces as it may be written, the first one without symlinks; null: nobody told.
create or replace function baton_roots() returns text[] language plpgsql stable as $$
begin
    return (select nullif(array(select jsonb_array_elements_text(s.value)), '{}')
              from baton_settings s where s.name = 'workspaces');
end $$;

-- The place's path below the root; null: it is elsewhere.
create or replace function baton_below(place text, roots text[]) returns text
language sql immutable as $$
    select substr(place, length(r) + 2)
      from unnest(roots) with ordinality as x (r, n)
     where starts_with(place, r || '/') order by n limit 1
$$;

-- 1024 locks, since a producer may ask for many projects in one transaction, and locks are not
-- without number.
create or replace function baton_place_lock(name text) returns bigint language sql immutable as $$
    select hashtextextended('baton place ' || (hashtextextended(name, 0) & 1023)::text, 0)
$$;

-- Whether another project has its place there, inside it or around it. `below` is a path below the
-- root. No project is looked at that is not one of these.
create or replace function baton_place_taken(project text, below text, roots text[])
returns boolean language plpgsql stable as $$
#variable_conflict use_variable
declare
    parts constant text[] := string_to_array(below, '/');
    above text[];
    path  text;
    part  text;
    root  text;
begin
    if parts[1] <> project then
        if exists (select from projects p
                    where p.project_id = parts[1] and baton_below(p.workspace, roots) is null) then
            return true;
        end if;
    end if;
    foreach root in array coalesce(roots, '{}') loop
        path := root;
        above := '{}';
        foreach part in array parts loop
            path := path || '/' || part;
            above := above || path;
        end loop;
        -- In the order of the index: whoever expects to meet one at once reads projects from the start.
        if exists (select from unnest(above) a cross join lateral (
                        select from projects p
                         where p.workspace collate "C" >= a and p.workspace collate "C" <= a
                           and p.project_id <> project
                         order by p.workspace collate "C" limit 1) p)
           or exists (select from (  -- 0 is what comes after /
                        select from projects p
                         where p.workspace collate "C" >= root || '/' || below || '/'
                           and p.workspace collate "C" < root || '/' || below || '0'
                           and p.project_id <> project
                         order by p.workspace collate "C" limit 1) p) then
            return true;
        end if;
    end loop;
    return false;
end $$;

-- As workers ask, who know the root of their own host.
create or replace function baton_place_refused(project text, below text, host_roots text[])
returns boolean language sql stable as $$
    select baton_place_taken(project, below, array(
        select distinct r from unnest(baton_roots() || host_roots) r))
$$;

-- The place of a new project as it is to be stored; null: that of its id. Refused where it is another
-- project's, or may not be anybody's.
create or replace function baton_new_place(project text, workspace text) returns text
language plpgsql as $$
#variable_conflict use_variable
declare
    roots constant text[] := baton_roots();
    below text;
begin
    if workspace is null then
        perform pg_advisory_xact_lock_shared(baton_place_lock(project));
        if baton_place_taken(project, project, roots) then
            perform baton_refuse('bad_workspace', format(
                'The place of project %s is not free: choose another id, or give it a workspace.', project),
                'project');
        end if;
        return null;
    end if;
    below := baton_below(workspace, roots);
    if roots is null then
        perform baton_refuse('bad_workspace',
            'Where workspaces lie is not known yet: start a worker, or migrate with BATON_WORKSPACES set.',
            'workspace');
    elsif below is null then
        perform baton_refuse('bad_workspace', format(
            'The workspace %s is outside %s: choose a directory in there.', workspace, roots[1]), 'workspace');
    elsif starts_with(below, '.') then
        perform baton_refuse('bad_workspace',
            'Directories that begin with a dot are Baton''s own: choose another for the workspace.', 'workspace');
    end if;
    perform pg_advisory_xact_lock(baton_place_lock(split_part(below, '/', 1)));
    if baton_place_taken(project, below, roots) then
        perform baton_refuse('bad_workspace', 'This workspace is not free: choose another directory.',
            'workspace');
    end if;
    return roots[1] || '/' || below;
end $$;

-- A project that is there keeps its place: naming the same one again changes nothing.
create or replace function baton_keep_place(known projects, workspace text) returns void
language plpgsql as $$
#variable_conflict use_variable
declare
    roots constant text[] := baton_roots();
begin
    if workspace is not null and workspace is distinct from known.workspace
            and baton_below(workspace, roots) is distinct from
                coalesce(baton_below(known.workspace, roots), known.project_id) then
        perform baton_refuse('bad_workspace',
            'The project has a workspace of its own: leave the workspace out.', 'workspace');
    end if;
end $$;
