"""What workers write into a study for the dashboard: note, plots, pictures of the best trials."""
