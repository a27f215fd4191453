"""Runs of many calls at once: Picard windows, and rounds of independent calls."""
