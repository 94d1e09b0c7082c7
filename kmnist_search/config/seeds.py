"""Seeds that are derived from others. Knows nothing of what is drawn with them."""

import numpy as np


def derived_seed(*numbers: int) -> int:
    """Return a seed below 2**32 that differs, as good as certainly, for every list of numbers (each 0 or more)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
