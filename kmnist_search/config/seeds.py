"""Seeds that are derived from other numbers."""

import numpy as np


def derived_seed(*numbers: int) -> int:
    """Return a seed below 2**32 from numbers of 0 or more; other numbers give, almost certainly, another seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
