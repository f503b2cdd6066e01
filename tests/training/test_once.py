"""One training of many: begun, gone on with or complete, and what the user is told in the words of any command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stanhop.config import RunConfig
from stanhop.errors import OutputError, StoppedError
from stanhop.series.frame import SeriesSet
from stanhop.training.fit import FitResult
from stanhop.training.once import fit_once, has_begun

Once = Callable[[], FitResult]


@pytest.fixture
def once(config: RunConfig, data: SeriesSet, tmp_path: Path) -> Once:
    return lambda: fit_once(config, run_path=tmp_path / "run", series_set=data, progress=False)


def test_the_same_call_begins_goes_on_and_finds_it_complete(
    once: Once, tmp_path: Path, reference: FitResult, signal_at_step: Callable[..., None]
) -> None:
    signal_at_step(7)
    assert not has_begun(tmp_path / "run")
    with pytest.raises(StoppedError) as caught:
        once()
    assert caught.value.message.endswith("; go on with the same command"), "no option of `stanhop train`"
    assert has_begun(tmp_path / "run")
    finished = once()
    assert not finished.was_complete
    assert finished.metrics["test/mse_scaled"] == reference.metrics["test/mse_scaled"]
    assert once().was_complete


def test_a_folder_that_holds_something_else_is_refused_without_options_of_train(once: Once, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="exists already; choose another folder for the whole command") as caught:
        once()
    assert "--" not in caught.value.message
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"
