"""What workers write into a study for the dashboard: note, plots and pictures of the best trials."""
