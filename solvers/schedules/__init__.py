"""Schedules: alpha, sigma and lam over time, in float64, with their ends."""
