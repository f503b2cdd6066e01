"""The no-op memory added to the read-out of another attention kernel, in one pass and in place."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from stanhop.kernels.no_op import add_no_op
from tests.kernels.cases import DEVICE


@pytest.mark.parametrize("num_features", [8, 16, 40])
@pytest.mark.parametrize("heads_side_by_side", [True, False])
def test_read_out_and_log_sum_are_those_with_a_score_and_value_of_0_more(heads_side_by_side, num_features) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 35, 5, generator=generator).mul(8).to(DEVICE)
    values = torch.randn(2, 3, 5, num_features, generator=generator).to(DEVICE)
    retrieved, log_sum = scores.softmax(-1) @ values, scores.logsumexp(-1)
    if heads_side_by_side:
        retrieved = retrieved.transpose(1, 2).contiguous().transpose(1, 2)
    log_sum = log_sum.unsqueeze(-1)  # as cuDNN gives it
    add_no_op(retrieved, log_sum)
    with_no_op = functional.pad(scores.double(), (0, 1))
    expected = with_no_op.softmax(-1)[..., :-1] @ values.double()
    torch.testing.assert_close(retrieved.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(log_sum.squeeze(-1).double(), with_no_op.logsumexp(-1), rtol=1e-6, atol=1e-6)


def test_log_sums_of_any_size_are_finite() -> None:
    retrieved, log_sum = torch.ones(1, 1, 4, 8, device=DEVICE), torch.tensor([[[-1e30, -80.0, 80.0, 1e30]]])
    log_sum = log_sum.to(DEVICE)
    add_no_op(retrieved, log_sum)
    assert log_sum.flatten().tolist() == [0.0, 0.0, 80.0, pytest.approx(1e30)]
    assert retrieved[0, 0, :, 0].tolist() == [0.0, pytest.approx(0.0, abs=1e-30), 1.0, 1.0]


def test_a_log_sum_that_it_could_not_read_is_refused() -> None:
    with pytest.raises(ValueError, match="log_sum must be contiguous float32"):
        add_no_op(torch.ones(1, 2, 3, 8), torch.ones(1, 3, 2).transpose(1, 2))
