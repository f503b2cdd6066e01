"""Fitting a network: resumable, guarded against divergence and signals, recorded."""
