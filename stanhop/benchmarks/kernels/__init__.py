"""Retrieval against its peers: cases, ways to compute them, the gate of correctness, times, tables, goals.

Nothing here needs more than torch (and Triton on a GPU); a peer's package is imported when its turn comes.
"""
