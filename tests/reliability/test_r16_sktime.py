"""R16: the forecaster of sktime passes every check that sktime has for one, none left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stanhop.interop.sktime import STanHopForecaster

FEWEST_CHECKS = 700


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.timeout(900)
def test_every_check_of_sktime_passes_with_no_exclusion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Callable[..., None]
) -> None:
    from sktime.utils import check_estimator

    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    results = check_estimator(STanHopForecaster, verbose=False)
    failed = {name: outcome for name, outcome in results.items() if outcome != "PASSED"}
    assert not failed
    assert len(results) > FEWEST_CHECKS
    assert not list(tmp_path.iterdir()), "no file is left behind"
    record("R16", "check_estimator of sktime", f"{len(results)} of {len(results)} checks pass, 0 left out")
