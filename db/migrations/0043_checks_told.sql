-- Checks of a period, for `baton report checks`.

-- step: by itself
create index concurrently if not exists checks_at on checks (at);
