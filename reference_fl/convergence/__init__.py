"""Convergence: distance to the optimum and gradient over the rounds, their slopes, a table and a figure.

`python -m reference_fl.convergence` with `collect` makes short files of finished runs, and with `report` the
table and the figure of docs/convergence.md from them.
"""
