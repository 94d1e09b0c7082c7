"""What the dashboard shows because the search knows it: a note, plots, and pictures of the best trials."""
