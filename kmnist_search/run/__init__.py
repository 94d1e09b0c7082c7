"""One run put together: which study, which devices, how many worker processes, and their supervisor."""
