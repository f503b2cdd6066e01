"""Triton kernels of retrieval: readable and testable alone, needing torch and triton and nothing of this package.

``operator.py`` is what others call. Below it ``launch.py`` allocates and launches, ``plan.py`` says with which tiles,
``resident.py`` and ``looped.py`` are the kernels for short and for long memories, ``separation.py`` and ``tiles.py``
what these have in common. ``rows_operator.py`` and ``rows.py`` do the same for scores alone, and ``no_op.py`` adds the
no-op memory to what another attention kernel returns. Green in the interpreter (``TRITON_INTERPRET=1``) is not green on
a GPU: it knows no races, alignment, shared memory, or rounding of half precision.
"""

from __future__ import annotations

from stanhop.kernels.operator import refusal as refusal
from stanhop.kernels.operator import retrieve as retrieve
from stanhop.kernels.rows_operator import separate_rows as separate_rows
