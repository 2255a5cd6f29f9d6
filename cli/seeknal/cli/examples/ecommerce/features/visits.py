"""Features of customers from their visits, in Python."""

from seeknal.pipeline import feature_group


@feature_group(
    name="customer_visits",
    entity={"name": "customer", "join_keys": ["customer_id"]},
    materialization={"event_time_col": "started_at"},
)
def customer_visits(ctx):
    visits = ctx.ref("transform.visits")
    return ctx.duckdb.sql(
        "SELECT customer_id, started_at, pages, reached_checkout FROM visits ORDER BY customer_id, started_at"
    )
