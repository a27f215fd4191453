"""Schedules, denoisers, planners, programs, executors and the catalogue of named solvers."""
