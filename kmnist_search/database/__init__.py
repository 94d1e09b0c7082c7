"""The database: its URL, connections and tables, and retries while it is away."""
