"""What is measured of data and denoisers, and the gauges that are made of it: DPM-Solver-v3 and Wiener."""
