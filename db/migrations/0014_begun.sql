-- On which head each run of the agent began, and why not on the head's own session if not:
-- so that what a dead worker left can be taken up whatever it had begun from.

alter table turns
    add column old_session_id text,
    add column source         text,
    add column reason         text;
comment on column turns.old_session_id is 'The head that the turn is to replace, as it was.';
comment on column turns.source is
    'Set where the head was passed over: the source of the move that this turn would make.';
comment on column turns.reason is 'Why the session that it began from was not the head.';

-- The newest attempt that was taken from a worker that lives: it is taken off `rescues` once.
alter table jobs add column uncounted uuid;
