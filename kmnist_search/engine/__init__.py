"""Trainings that are advanced step by step, checkpointed and resumed, computed by torch or by Triton kernels."""
