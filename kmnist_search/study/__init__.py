"""An Optuna study as this program uses it: its settings, its trials, its samplers and pruners, its status."""
