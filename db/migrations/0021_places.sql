-- Whose a directory is, and which version is being built, are asked with each request: each is a
-- probe of an index. Columns with a collation of "C" answer "below this directory" too.
-- was: 78451194b3bba713611af8fa96676d7941d698d89111f359630497adb9cffd42

alter table jobs add constraint run_at_can_be_read
    check (run_at between '2000-01-01Z' and '9999-12-31Z') not valid;
alter table jobs add constraint publish_after_can_be_read
    check (publish_after between '2000-01-01Z' and '9999-12-31Z') not valid;

-- step: by itself
create index concurrently if not exists projects_places on projects (workspace collate "C");

-- step: by itself
create index concurrently if not exists jobs_version on jobs (version_id)
    where finished_at is null and version_id is not null;
