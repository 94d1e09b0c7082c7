"""Hyperparameter search for patch-MLPs on KMNIST."""
