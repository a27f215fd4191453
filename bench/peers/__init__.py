"""This library beside others: errors at equal evaluations, and time."""
