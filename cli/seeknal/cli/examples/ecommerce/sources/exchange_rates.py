"""What the shop looks up itself: rates of exchange. A function is a node; nothing runs until its node does."""

import pyarrow

from seeknal.pipeline import source

# Part of the node: changing a rate runs it again, changing this comment does not.
EUROS = {"EUR": 1.0, "USD": 0.92}


@source(name="exchange_rates", description="Euros for one unit of a currency", tags=["raw"])
def exchange_rates(ctx):
    return pyarrow.table({"currency": list(EUROS), "rate": list(EUROS.values())})
