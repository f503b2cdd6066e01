"""Training without files: the same network as ``fit`` trains, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stanhop.config import RunConfig
from stanhop.errors import DataError
from stanhop.forecasting.bundle import load_bundle
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.windows import Borders, borders
from stanhop.training.fit import fit
from stanhop.training.in_memory import fit_in_memory


def test_it_trains_the_network_that_fit_trains(config: RunConfig, data: SeriesSet, tmp_path: Path) -> None:
    def split(series: Series) -> Borders:
        return borders(len(series), config.data.split)

    expected = load_bundle(fit(config, run_path=tmp_path, series_set=data, progress=False).model_path)
    bundle = fit_in_memory(config, data, borders_of=split)
    assert bundle.network.state_dict().keys() == expected.network.state_dict().keys()
    for name, weight in expected.network.state_dict().items():
        assert torch.equal(bundle.network.state_dict()[name], weight), name
    assert bundle.scalers[""].to_plain() == expected.scalers[""].to_plain()


def test_it_goes_on_from_weights_and_leaves_those_as_they_are(config: RunConfig, data: SeriesSet) -> None:
    def all_rows(series: Series) -> Borders:
        return Borders(range(len(series)), range(0), range(0))

    first = fit_in_memory(config, data, borders_of=all_rows)
    before = {name: weight.clone() for name, weight in first.network.state_dict().items()}
    one_step = {"learning_rate": 1e-9, "max_epochs": 1, "batch_size": 1000}  # in which an average forgets nothing
    crawl = config.model_copy(update={"train": config.train.model_copy(update=one_step)})
    second = fit_in_memory(crawl, data, borders_of=all_rows, network=first.network)
    for name, weight in second.network.state_dict().items():
        assert torch.allclose(weight, before[name], atol=1e-5), name
        assert torch.equal(first.network.state_dict()[name], before[name])


def test_no_training_window_is_an_error(config: RunConfig, data: SeriesSet) -> None:
    with pytest.raises(DataError, match=r"no series has 11 \+ 3 rows to learn from"):
        fit_in_memory(config, data, borders_of=lambda _: Borders(range(13), range(0), range(0)))
