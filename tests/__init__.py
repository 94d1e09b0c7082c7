"""The tests of kmnist-search; what they share is in `support`."""
