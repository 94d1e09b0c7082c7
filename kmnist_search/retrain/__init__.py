"""From the best trials of a study to a tested model and its report. Knows nothing of terminals."""
