"""The test set as it may be looked at: by models whose recipe is frozen, each look written down before it is had."""
