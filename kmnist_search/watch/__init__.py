"""`status --watch`: follows a study that others work on, on the full terminal screen."""
