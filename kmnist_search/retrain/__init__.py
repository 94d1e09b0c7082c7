"""The retraining: from the best trials of a study to a tested model and its report."""
