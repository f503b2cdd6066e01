"""Hopfield retrieval: the separation function, the retrieval dynamics with its energy, and the layers."""

from __future__ import annotations

from stanhop.hopfield.layers import Hopfield as Hopfield
from stanhop.hopfield.layers import HopfieldLayer as HopfieldLayer
from stanhop.hopfield.layers import HopfieldPooling as HopfieldPooling
from stanhop.hopfield.retrieval import energy as energy
from stanhop.hopfield.retrieval import retrieval_weights as retrieval_weights
from stanhop.hopfield.retrieval import retrieve as retrieve
from stanhop.hopfield.separation import SEPARATIONS as SEPARATIONS
from stanhop.hopfield.separation import Separation as Separation
from stanhop.hopfield.separation import separate as separate
