"""Solvers by name, what `auto` chooses, and how a name and a grid become a program."""
