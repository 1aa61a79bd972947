-- A key may have an end (db/live/keys.py): from then on it counts for nothing, at every door.

-- step: in a transaction
alter table api_keys add column if not exists expires_at timestamptz;
comment on column api_keys.expires_at is 'From then on the key counts for nothing. Null: until it is revoked.';
