"""Studies for programs and notebooks, and the work that they share with the command line."""

from kmnist_search.host.runtimes import set_up_runtimes

set_up_runtimes()  # before torch is imported
