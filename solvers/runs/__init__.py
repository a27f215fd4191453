"""Runs of a program call by call: the executor, its noise, its watchers, and what it returns."""
