"""Finds the files that come with the program: presets in ``configs/`` and the catalogue in ``data/``.

In a wheel they lie in ``stanhop/_bundled/``; in a checkout, at its top.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
BUNDLED = PACKAGE / "_bundled"


def resource(*parts: str) -> Path:
    """Path of the bundled file or folder ``parts``, for example ``resource("configs", "etth1.yaml")``."""
    root = BUNDLED if BUNDLED.is_dir() else PACKAGE.parent
    return root.joinpath(*parts)


def preset_paths() -> dict[str, Path]:
    """Every preset by name, sorted."""
    return {path.stem: path for path in sorted(resource("configs").glob("*.yaml"))}
