"""The number of CPU threads that a training uses."""

from kmnist_search.config import TrialConfig
from kmnist_search.config.cost import flops_per_image
from kmnist_search.host.resources import usable_cores

#: Threads wait for each other after every operation, so small operations are faster on one: at 0.5 GFLOP per step one
#: thread is 1.2 times as fast as two, at 4.6 GFLOP two are 1.2 times as fast as one (tests/benchmarks/LOG.md).
FLOPS_PER_THREAD = 1.0e9


def threads_for(config: TrialConfig, cores: int | None = None) -> int:
    """Return the number of threads, at least 1 and at most `cores`; None means all cores that this process may use."""
    flops_per_step = 3 * config.batch.batch_size * flops_per_image(config.model)
    return max(1, min(cores or usable_cores(), round(flops_per_step / FLOPS_PER_THREAD)))
