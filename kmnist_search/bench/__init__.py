"""How fast this machine trains, and beside what. Knows nothing of studies or databases."""
