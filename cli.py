"""``python cli.py`` is the command ``stanhop`` for people in a checkout."""

from __future__ import annotations

from stanhop.cli.app import entry_point

if __name__ == "__main__":
    entry_point()
