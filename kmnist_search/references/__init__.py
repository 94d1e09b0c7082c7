"""Five published, hand-tuned systems: retrained as published, tested once, and compared with their claims."""
