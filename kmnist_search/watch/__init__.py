"""`status --watch`: follows a study that others work on and fills the terminal with it."""
