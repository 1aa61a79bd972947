-- A chain is of one project and one user, and so is its webhook: Postgres holds it, whoever writes. (The
-- tables that may be the product's have no such keys: docs/decisions/0031.)
--
-- Rows that are there already are looked at last. Where one breaks the rule nothing is refused: the key
-- holds for what is written from now on, and `baton doctor` names the key until the rows are mended.

-- step: by itself
create unique index concurrently if not exists jobs_owner on jobs (id, project_id, user_id);
-- step: in a transaction
alter table jobs drop constraint if exists jobs_of_one_owner,
    add constraint jobs_of_one_owner foreign key (chain_id, project_id, user_id)
        references jobs (id, project_id, user_id) not valid;
-- step: in a transaction
alter table webhooks drop constraint if exists webhooks_of_their_chain,
    add constraint webhooks_of_their_chain foreign key (chain_id, project_id, user_id)
        references jobs (id, project_id, user_id) not valid;
-- step: in a transaction
do $$
begin
    alter table jobs validate constraint jobs_of_one_owner;
exception when foreign_key_violation then null;  -- doctor tells
end $$;
-- step: in a transaction
do $$
begin
    alter table webhooks validate constraint webhooks_of_their_chain;
exception when foreign_key_violation then null;
end $$;
