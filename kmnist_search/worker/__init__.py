"""A worker: claims trials from the queue, trains them, and reports to the database."""
