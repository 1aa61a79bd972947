"""What Postgres knows of a project's past: what a fresh session is told.

    main     A ── B ── C ── D       after D a fresh session is told of A, B, C and D,
              \\                     after F of A, E and F; when the head goes back to B,
    branch     E ── F               of A and B

A session's `old_session_id` is the step back: the head of its line that it replaced. Where
that is not known (a head that the product had set before Baton came), what is older of the
main line is told as well. Of other users' sessions (the project was theirs once) nothing that
was said is told; the way back leads through them.
"""

from dataclasses import dataclass, field
from typing import LiteralString

from psycopg import Connection

MESSAGES = 20  # of a digest at most; a third of its characters bounds them too (prompts.digest)
STEPS = 400  # sessions back; chat and summary are of the newest of them


@dataclass(frozen=True, slots=True)
class Past:
    """The material of a digest, newest chat last; `said` holds (role, text), `at` when each
    was said, in seconds since the epoch. `files` and `documentation` are as the line's newest
    turn left them that wrote files. `untold` are sessions whose transcripts hold what was said
    before there was chat of it: of imported sessions, and of a template's."""

    summary: str | None
    said: list[tuple[str, str]]
    versions: list[str]
    files: list[str] = field(default_factory=list[str])
    documentation: str = ""
    at: list[float] = field(default_factory=list[float], compare=False)
    untold: list[str] = field(default_factory=list[str])


def past(
    conn: Connection,
    project_id: str,
    *,
    lane: str,
    head: str | None,
    user_id: str,
    messages: int = MESSAGES,
    steps: int = STEPS,
) -> Past:
    """The newest summary, the recent chat and the files of the line that `head` ends, and the
    versions, oldest first. Summary and chat are those of the user's sessions, or of nobody's.

    Messages of the product's own that name no session of ours, and versions, are the main
    line's: on a branch, those from before it began.
    """
    row = conn.execute(
        PAST,
        {
            "project": project_id,
            "lane": lane,
            "head": head,
            "user": user_id,
            "steps": steps,
            "messages": messages,
        },
    ).fetchone()
    assert row
    summary, files, documentation, versions, said, untold = row
    said.reverse()
    return Past(
        summary,
        [(role, text) for role, text, _ in said],
        versions,
        files,
        documentation,
        at=[float(at) for _, _, at in said],
        untold=untold,
    )


# A line ends after `steps` sessions at the most, so one that runs in a circle ends too.
# `since`: what is older than that is not on the path because the path does not reach it.
PAST: LiteralString = """
    with recursive path as (
        select session_id, old_session_id, lane, created_at, 1 as back,
               user_id is null or user_id = %(user)s as own,
               summary is not null as summed_up, digest_files is not null as noted
          from project_ai_session_metrics
         where session_id = %(head)s and project_id = %(project)s
        union all
        select m.session_id, m.old_session_id, m.lane, m.created_at, path.back + 1,
               m.user_id is null or m.user_id = %(user)s, m.summary is not null,
               m.digest_files is not null
          from path join project_ai_session_metrics m on m.session_id = path.old_session_id
         where m.project_id = %(project)s and path.back < %(steps)s
    ), bounds as (
        select coalesce((select min(created_at) from path), 'infinity') as since,
               coalesce((select min(b.created_at) from branches b
                          where %(lane)s <> 'main' and b.project_id = %(project)s
                            and (b.lane = %(lane)s or b.lane in (select lane from path))),
                        'infinity') as until
    ), line as (
        select session_id, back, created_at, own, summed_up, noted from path
        union all
        select m.session_id, null, m.created_at, m.user_id is null or m.user_id = %(user)s,
               m.summary is not null, m.digest_files is not null
          from bounds, project_ai_session_metrics m
         where m.project_id = %(project)s and m.lane = 'main' and m.created_at <= bounds.since
    ), roots as (  -- what was said in these, or before, is in no chat
        select path.session_id, path.back
          from path join project_ai_session_metrics m using (session_id)
         where path.own and case
               when m.job_id is null then (  -- imported, or the product's; `not exists` may read
                   select true from project_chat_log_minimal c  -- all of the project's chat
                    where c.project_id = %(project)s and c.ai_session_id = m.session_id
                    limit 1) is null
               else m.old_session_id is null and m.parent_session_id is not null
                and not exists (select from project_ai_session_metrics f  -- of a template
                                 where f.session_id = m.parent_session_id
                                   and f.project_id = %(project)s) end
    ), newest as (
        select (select session_id from line where summed_up and own
                 order by back, created_at desc limit 1) as summed_up,
               (select session_id from line where noted
                 order by back, created_at desc limit 1) as noted
    )
    select s.summary, coalesce(f.digest_files, '[]'), coalesce(f.digest_documentation, ''),
           array(select v.version_id::text from project_versions v, bounds
                  where v.project_id = %(project)s and v.version_id is not null
                    and v.created_at <= bounds.until
                  order by v.created_at, v.id),
           array(select array[c.role::text, c.content::text,
                              extract(epoch from c.created_at)::text]
                   from bounds, project_chat_log_minimal c
                   left join project_ai_session_metrics m
                     on m.session_id = c.ai_session_id and m.project_id = c.project_id
                  where c.project_id = %(project)s and c.role is not null
                    and c.content is not null
                    and (c.ai_session_id in (select session_id from line where own)
                         or m.session_id is null and c.created_at <= bounds.until)
                  order by c.created_at desc limit %(messages)s),
           array(select session_id from (
               select distinct on (held.session_id) held.session_id, roots.back
                 from roots, lateral (
                   select p.session_id from path p
                     join transcript_sessions t on t.project_id = %(project)s
                      and t.session_id = p.session_id and t.subpath = ''
                    where p.back <= roots.back order by p.back desc limit 1) held) found
              order by back limit 3)
      from newest
      left join project_ai_session_metrics s on s.session_id = newest.summed_up
      left join project_ai_session_metrics f on f.session_id = newest.noted"""
