"""Solvers as tables, and what runs them. What is named here is what a solver of one's own is made of."""

from .bases import DCT, Basis, Principal
from .catalogue.solver import Planner, Solver
from .planners.gauge import Gauge, Nodes
from .planners.gauges import EPS, STRAIGHT, VELOCITY, VELOCITY_LAM, X0, V
from .planners.multistep import Adams
from .planners.singlestep import ExponentialRungeKutta
from .planners.stochasticity import Smooth, Stochasticity, Window
from .planners.tableaux import Tableau, butcher
from .programs.call import Call, NoiseKey
from .programs.program import Program

__all__ = [
    "DCT",
    "EPS",
    "STRAIGHT",
    "VELOCITY",
    "VELOCITY_LAM",
    "X0",
    "Adams",
    "Basis",
    "Call",
    "ExponentialRungeKutta",
    "Gauge",
    "Nodes",
    "NoiseKey",
    "Planner",
    "Principal",
    "Program",
    "Smooth",
    "Solver",
    "Stochasticity",
    "Tableau",
    "V",
    "Window",
    "butcher",
]
