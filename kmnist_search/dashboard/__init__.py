"""The web server around optuna-dashboard: login, request checks, error pages, cached answers."""
