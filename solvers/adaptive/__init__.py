"""Runs that choose their own steps."""
