-- How many are on their way to a host is asked twice a second, and any number may wait for it.

-- step: by itself
create index concurrently if not exists webhooks_held on webhooks (host)
    where held_until is not null;
