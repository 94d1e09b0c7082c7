"""Whole studies exported, imported, copied, renamed and deleted."""
