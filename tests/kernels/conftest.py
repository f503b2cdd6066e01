"""Fixtures of the kernel tests: poisoned memory, and loops forced onto short memories."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stanhop.kernels import launch
from tests.kernels.cases import looped_plan


@pytest.fixture
def looped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that loop over blocks of 16 memories."""
    monkeypatch.setattr(launch, "forward_plan", looped_plan)
    monkeypatch.setattr(launch, "backward_plan", looped_plan)
    monkeypatch.setattr(launch, "memories_plan", looped_plan)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory is full of NaN, so that a cell that a kernel leaves out shows."""

    def poison(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def created(*arguments: object, **options: object) -> Tensor:
            tensor = create(*arguments, **options)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() and tensor.device.type != "meta" else tensor

        return created

    monkeypatch.setattr(torch, "empty", poison(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poison(Tensor.new_empty))
