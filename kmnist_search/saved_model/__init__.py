"""Saved models: their folders, their predictions, and their export to other formats."""
