"""What a bench has measured, as tables, plots and a page."""
