"""Triton kernels of a training whose forward and backward are written by hand."""
