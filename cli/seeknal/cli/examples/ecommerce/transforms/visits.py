"""Visits to the web shop. A visit ends after half an hour without a click."""

from seeknal.pipeline import transform

MINUTES_OF_SILENCE = 30


@transform(name="visits", description="Visits, with the pages seen and whether one was the checkout")
def visits(ctx):
    events = ctx.ref("source.web_events", columns=["customer_id", "seen_at", "page"])
    return ctx.duckdb.sql(
        f"""
        SELECT
            customer_id,
            min(seen_at) AS started_at,
            count(*) AS pages,
            bool_or(page = 'checkout') AS reached_checkout
        FROM (
            SELECT *, sum(begins) OVER (PARTITION BY customer_id ORDER BY seen_at, page) AS visit
            FROM (
                SELECT *, CAST(
                    coalesce(seen_at - lag(seen_at) OVER (PARTITION BY customer_id ORDER BY seen_at, page)
                        > INTERVAL {MINUTES_OF_SILENCE} MINUTE, true) AS INTEGER
                ) AS begins
                FROM events
            )
        )
        GROUP BY customer_id, visit
        ORDER BY customer_id, started_at
        """
    )
