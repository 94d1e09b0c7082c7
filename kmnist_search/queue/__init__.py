"""The queue of waiting trials, the leases of running ones, and the workers of a study."""
