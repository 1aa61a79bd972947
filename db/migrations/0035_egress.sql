-- What a turn's agent has in place of the model's key: a token, kept as its hash, that the egress
-- proxy takes while the turn runs and its attempt is held; and what it may spend.
alter table turns
    add column if not exists token_hash text,
    add column if not exists budget_usd numeric,
    add column if not exists spent_usd  numeric;
comment on column turns.token_hash is 'SHA-256 in hex of the token that its agent was given.';
comment on column turns.budget_usd is 'What its agent may spend at the model; null: no limit.';
comment on column turns.spent_usd is
    'What the egress proxy has counted against the budget, by its own list of prices.';

-- step: by itself
create unique index concurrently if not exists turns_token on turns (token_hash)
    where outcome = 'running';
