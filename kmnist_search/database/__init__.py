"""The database: its URL, its connections, its tables, and how long to wait while it is away."""
