"""The retraining of a study's best trials, up to a tested model and its report."""
