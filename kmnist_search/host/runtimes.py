"""The settings of OpenMP and CUDA in this process."""

import os


def set_up_runtimes() -> None:
    """Set what OpenMP and CUDA read once, when torch is imported or first uses a GPU; what the user has set stays.

    OpenMP's threads sleep while they wait. Threads that spin take the cores from each other: two runs on two cores made
    15 steps/s each instead of 53 (tests/benchmarks/LOG.md). CUDA gets a hardware queue for each of up to 32 streams
    instead of 8, so that more than 8 trainings on a GPU do not share one (reasoned, not measured).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
