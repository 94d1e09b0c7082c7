"""The server of optuna-dashboard: who may see and change what, and how its questions are answered. Trains nothing."""
