"""Fixtures that read a table given as text or bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stanhop.config import DataConfig
from stanhop.errors import UserError
from stanhop.series.frame import SeriesSet
from stanhop.series.load import read_series_file


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SeriesSet]:
    """``read(content, name="a.csv", minimum_length=1, **options)``: the series in a file of that content."""
    folder = tmp_path_factory.mktemp("tables")

    def read(content: str | bytes, *, name: str = "a.csv", minimum_length: int = 1, **options: Any) -> SeriesSet:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_series_file(path, DataConfig(**options), minimum_length=minimum_length)

    return read


@pytest.fixture(scope="session")
def refusal(read: Callable[..., SeriesSet]) -> Callable[..., UserError]:
    """The error with which ``read`` refuses; it names its file and a way out."""

    def refusal(content: str | bytes, *, name: str = "a.csv", **options: Any) -> UserError:
        with pytest.raises(UserError) as caught:
            read(content, name=name, **options)
        error = caught.value
        assert error.file is not None
        assert Path(error.file).name == name
        assert error.fix
        return error

    return refusal
