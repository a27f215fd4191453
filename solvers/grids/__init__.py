"""Grids: where a run stops, by name, from published lists, or as users write noise levels."""
