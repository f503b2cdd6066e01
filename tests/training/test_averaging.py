"""The moving average of the weights, against its recursion step by step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stanhop.training.averaging import MovingAverage


def walk(network: nn.Linear, generator: torch.Generator) -> None:
    """A step of training, for all that an average knows."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator))


@pytest.mark.parametrize(("decay", "num_steps"), [(0.9, 100), (0.5, 3), (0.99, 30)])
def test_it_is_its_recursion(decay: float, num_steps: int) -> None:
    generator = torch.Generator().manual_seed(4)
    network = nn.Linear(3, 2)
    average = MovingAverage(network, decay)
    expected = network.weight.detach().clone().double()
    for step in range(1, num_steps + 1):
        walk(network, generator)
        average.update(network, num_steps=step)
        share = min(decay, step / (9 + step))
        expected = share * expected + (1 - share) * network.weight.detach().double()
    assert torch.allclose(average.network.weight.double(), expected, atol=1e-5)  # type: ignore[union-attr, operator]


def test_a_short_training_forgets_the_weights_it_began_with() -> None:
    network = nn.Linear(3, 2)
    average = MovingAverage(network, 0.999)
    with torch.no_grad():
        network.weight.fill_(7.0)
    for step in range(1, 6):
        average.update(network, num_steps=step)
    assert torch.allclose(average.network.weight, torch.tensor(7.0), atol=0.01)  # type: ignore[arg-type]


def test_it_changes_nothing_it_follows_and_has_no_gradient() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = MovingAverage(network, 0.9)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(5, 3, generator=torch.Generator().manual_seed(4)))  # moves the norm's buffers
    average.update(network, num_steps=1)
    assert torch.equal(network[0].weight, before["0.weight"])
    assert torch.equal(average.network[1].running_mean, network[1].running_mean)  # type: ignore[index]
    assert not torch.equal(average.network[1].running_mean, before["1.running_mean"])  # type: ignore[index]
    assert not any(weight.requires_grad for weight in average.parameters())
