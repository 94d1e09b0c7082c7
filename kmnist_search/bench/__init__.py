"""How fast this machine trains, and how many trials at once are worth it."""
