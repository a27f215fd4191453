"""Planners: from a method and a grid to a program. Gauges, quadrature, tableaux, stochasticity."""
