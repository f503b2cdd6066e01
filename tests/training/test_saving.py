"""The states of random generators in a checkpoint."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch

from stanhop.training.saving import random_state, restore_random_state


def draws() -> tuple[float, float, float, float]:
    gauss = random.gauss(0, 1)
    return gauss, random.random(), float(np.random.standard_normal()), float(torch.rand(()))  # noqa: NPY002 - the global one


@pytest.mark.parametrize("before", [0, 1, 700])
def test_generators_go_on_where_they_were(before: int) -> None:
    for _ in range(before):
        draws()
    buffer = io.BytesIO()
    torch.save(random_state(), buffer)
    expected = [draws() for _ in range(5)]
    restore_random_state(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert [draws() for _ in range(5)] == expected
