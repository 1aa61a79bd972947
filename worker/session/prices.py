"""What a token of plain input costs, by family of models: list prices, in USD for a million.

All else is a multiple of it, the same for every family: written to the provider's cache 1.25 (two
for an hour), read from it 0.1, an answer's 5 (db/sessions/costs.py). BATON_PRICES says otherwise
where prices have moved: `opus=5,sonnet=3,haiku=1`.
"""

from config.settings import settings
from config.values import listed

AS_OF = "2025-11"  # of the list below; newer models of a family are taken to cost the same
LIST = {"opus": 5.0, "sonnet": 3.0, "haiku": 1.0}
MILLION = 1_000_000


def usd(tokens: float, model: str | None) -> float | None:
    """The price of so many tokens of plain input; None for a model that is in no family."""
    told = (one.partition("=") for one in listed(settings().prices))
    known = LIST | {name: float(price) for name, _, price in told}
    price = next((usd for name, usd in known.items() if name in (model or "")), None)
    return None if price is None else round(tokens * price / MILLION, 4)
