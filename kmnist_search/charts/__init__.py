"""Charts of a study and the data behind them, for the report and the dashboard."""
