"""Outliers of activations, simulated quantisation at any bit width, and int8 model directories."""
