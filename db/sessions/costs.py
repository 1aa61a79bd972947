"""What a turn cost, also where the CLI did not live to say it.

The CLI's figure is cumulative over resume and fork: a turn's own cost is the difference
from its parent's. What ran without a figure is counted in tokens of plain input (its
`weight`) and priced as the newest turn whose price is known; such a cost is an estimate.
"""

from typing import LiteralString

# What a token costs, as a multiple of a plain one of input: much the same for every model.
WEIGHTS = {"input": 1.0, "cache_creation": 1.25, "cache_read": 0.1, "output": 5.0}

# Of a turn whose price is known. Parameters: the weights by their names.
PRICE_OF_TURN: LiteralString = """
            (select cost_usd / nullif(input_tokens * %(input)s::numeric
                       + cache_creation_tokens * %(cache_creation)s::numeric
                       + cache_read_tokens * %(cache_read)s::numeric
                       + output_tokens * %(output)s::numeric, 0)
               from project_ai_session_metrics
              where cost_usd > 0 and not cost_estimated
                and input_tokens + cache_creation_tokens + cache_read_tokens + output_tokens > 0
                and """
# One row `price (usd)`: of a token of plain input, by this project's newest turn, else by
# anybody's. Parameter beside the weights: project.
PRICE: LiteralString = (
    """
    price as (
        select coalesce("""
    + PRICE_OF_TURN
    + "project_id = %(project)s order by created_at desc limit 1),"
    + PRICE_OF_TURN
    + """stale_at is null order by last_used_at desc limit 1)) as usd
    )"""
)

# One row `cost (usd)` of a run that was not committed. Parameters: job, minted, raw (the
# CLI's figure, null if it gave none), weight. Null when there is no price to go by.
COST: LiteralString = (
    """
    parent as (
        select m.raw_cost_usd from turns t
          join project_ai_session_metrics m on m.session_id = t.parent_session_id
         where t.job_id = %(job)s and t.minted_session_id = %(minted)s limit 1
    ),"""
    + PRICE
    + """,
    cost as (
        select case when %(raw)s::numeric is null then %(weight)s::numeric * price.usd
                    when p.raw_cost_usd <= %(raw)s::numeric
                    then %(raw)s::numeric - p.raw_cost_usd else %(raw)s::numeric end as usd
          from (select 1) one left join parent p on true left join price on true
    )"""
)
