"""``python -m stanhop`` is the command ``stanhop``."""

from __future__ import annotations

from stanhop.cli.app import entry_point

if __name__ == "__main__":
    entry_point()
