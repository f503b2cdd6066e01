"""Grids of experiments that the command `stanhop bench` runs, and the tables they end in."""
