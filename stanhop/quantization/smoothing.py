"""SmoothQuant: move the scale of outlying features from activations into the weights behind them, changing no output.

For feature j of a LayerNorm's output x and the linear maps W that read it,

    s_j = max|x_j| ** strength / max|W_j| ** (1 - strength)        norm' = norm / s        W'_j = s_j W_j

Source: Xiao et al. 2022, arXiv:2211.10438, equation 4.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from stanhop.errors import Code, ConfigError
from stanhop.hopfield.layers import Hopfield
from stanhop.model.block import AcrossChannels, FeedForward, Residual
from stanhop.model.network import ReadOut, STanHopNet, with_head
from stanhop.model.patching import CoarseGraining

LEAST = 1e-5
"""The smallest magnitude a feature or a weight is taken to have."""


def smoothed(network: nn.Module, contexts: Iterable[Tensor], *, strength: float = 0.5) -> nn.Module:
    """A copy of ``network`` whose LayerNorms put out features of similar scale.

    Args:
        network: A ``STanHopNet`` in evaluation mode.
        contexts: Scaled contexts ``(batch, context_length, columns)`` to find the scale of each feature on.
        strength: 0 moves nothing but the scale of the weights, 1 everything.
    """
    changed = copy.deepcopy(network)
    smooth(changed, contexts, strength=strength)
    return changed


def smooth(network: nn.Module, contexts: Iterable[Tensor], *, strength: float = 0.5) -> None:
    """As ``smoothed``, changing ``network`` itself.

    Raises:
        ConfigError: it is no ``STanHopNet``, whose norms stand in front of what reads them.
    """
    if not isinstance(network, STanHopNet):
        problem = f"smoothing is for a STanHopNet, this is a {type(network).__name__}"
        raise ConfigError(Code.CONFIG, problem, fix="leave --smoothing out")
    pairs = list(norms_and_readers(network))
    largest = _largest_features(network, [norm for norm, _ in pairs], contexts)
    with torch.no_grad():
        for (norm, readers), features in zip(pairs, largest, strict=True):
            weights = torch.stack([_by_feature(reader, norm).abs().amax(dim=(0, 1)) for reader in readers]).amax(dim=0)
            scale = features.clamp(min=LEAST) ** strength / weights.clamp(min=LEAST) ** (1 - strength)
            norm.weight.div_(scale)
            norm.bias.div_(scale)
            for reader in readers:
                _by_feature(reader, norm).mul_(scale)


def norms_and_readers(network: nn.Module) -> Iterator[tuple[nn.LayerNorm, list[nn.Linear]]]:
    """Each LayerNorm of ``network`` with all linear maps that read its output."""
    for module in network.modules():
        if isinstance(module, Residual):
            yield module.norm, _readers(module.change)
        elif isinstance(module, CoarseGraining):
            yield module.norm, [module.linear]
        elif isinstance(module, ReadOut):
            norm, *_, linear = module
            assert isinstance(norm, nn.LayerNorm)
            assert isinstance(linear, nn.Linear)
            yield norm, [linear]


def _readers(change: nn.Module) -> list[nn.Linear]:
    """The linear maps in ``change`` that read what it is given."""
    if isinstance(change, FeedForward):
        first = change[0]
        assert isinstance(first, nn.Linear)
        return [first]
    if isinstance(change, AcrossChannels):
        answering = change.learned_memories.hopfield  # its memories and values are its own
        return [*_readers(change.between_channels), *_present(answering.query_proj, answering.gate_proj)]
    assert isinstance(change, Hopfield)
    return _present(change.query_proj, change.memory_proj, change.values_proj, change.gate_proj)


def _present(*linears: nn.Linear | None) -> list[nn.Linear]:
    return [linear for linear in linears if linear is not None]


def _by_feature(reader: nn.Linear, norm: nn.LayerNorm) -> Tensor:
    """The weights of ``reader`` as ``(outputs, patches, features)``, a view; a read-out sees all patches at once."""
    return reader.weight.view(reader.out_features, -1, norm.normalized_shape[-1])


def _largest_features(network: nn.Module, norms: list[nn.LayerNorm], contexts: Iterable[Tensor]) -> list[Tensor]:
    """The largest magnitude of each feature of the output of each norm."""
    largest = [torch.zeros_like(norm.weight) for norm in norms]

    def look(index: int, output: Tensor) -> None:
        seen = output.detach().abs().flatten(0, -2).amax(dim=0)
        torch.maximum(largest[index], seen, out=largest[index])

    handles = [
        norm.register_forward_hook(lambda _module, _inputs, output, index=index: look(index, output))
        for index, norm in enumerate(norms)
    ]
    call = with_head(network)
    with torch.no_grad():
        for batch in contexts:
            call(batch)
    for handle in handles:
        handle.remove()
    return largest
