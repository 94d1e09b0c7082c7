"""One training as a thing that can be stepped, checkpointed and resumed. Knows nothing of studies or databases."""
