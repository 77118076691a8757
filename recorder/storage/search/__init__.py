"""Full-text search over messages: what is indexed, how a query is compared with a text, and the queries."""
