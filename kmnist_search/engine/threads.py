"""How many CPU threads a training is worth. Knows nothing of how it trains."""

from kmnist_search.config import TrialConfig
from kmnist_search.config.cost import flops_per_image
from kmnist_search.host.resources import usable_cores

#: Threads wait for each other after every operation, so small operations are faster on one: at 0.5 GFLOP a step one
#: thread made 1.2 times the steps of two, at 4.6 GFLOP two made 1.2 times those of one (tests/benchmarks/LOG.md).
FLOPS_PER_THREAD = 1.0e9


def threads_for(config: TrialConfig, cores: int | None = None) -> int:
    """Return the number of threads, at least 1 and at most `cores`; None is all that this process may use."""
    flops_per_step = 3 * config.batch.batch_size * flops_per_image(config.model)
    return max(1, min(cores or usable_cores(), round(flops_per_step / FLOPS_PER_THREAD)))
