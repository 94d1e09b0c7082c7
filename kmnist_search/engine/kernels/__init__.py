"""Triton kernels of a training with hand-written forward and backward passes."""
