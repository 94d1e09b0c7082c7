"""An Optuna study: its settings, trials, samplers, pruners and status."""
