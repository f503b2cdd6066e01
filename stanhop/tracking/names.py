"""The names under which a run is recorded, shared by what writes and what reads."""

from __future__ import annotations

PARENT_TAG = "mlflow.parentRunId"
NAME_TAG = "mlflow.runName"
PRESET_TAG = "stanhop.preset"
WINDOW_ERRORS = "window_errors.npy"
"""The file of a run with the error of each test window, which `stanhop runs compare` pairs runs by."""
