"""A run: its study, devices and worker processes, and their supervisor."""
