"""Which images to draw: retrieval by queries and clusters, rebalancing, and seeded draws without a sort."""
