"""The network's own file in a model directory: written from a network, and a network built from it and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stanhop.errors import Code, ModelError, quoted
from stanhop.forecasting.bundle.files import CONFIG, ONNX, RESTORE, WEIGHTS, BundleConfig
from stanhop.model.int8 import with_int8_linears
from stanhop.model.network import build_network
from stanhop.model.onnx import OnnxNetwork

ROOM = 1_000_000
"""Elements that any network may have, whatever its weights: 4 MB."""
SCALE = ".scale"
"""How the name of a residual step's learned scale ends."""


def network_file(network: nn.Module) -> dict[str, bytes]:
    """Name and bytes of the file that holds ``network``."""
    if isinstance(network, OnnxNetwork):
        return {ONNX: network.content}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return {WEIGHTS: safetensors.torch.save(weights)}


def read_network(config: BundleConfig, contents: Mapping[str, bytes], *, directory: Path) -> nn.Module:
    """The network that ``config`` describes, from the file of it in ``contents``; on the CPU, in evaluation mode.

    Args:
        config: Of the model.
        contents: Files by name.
        directory: Where they lie, for errors.

    Raises:
        ModelError: the file is damaged, is not of this network, or holds a value that is not finite.
        MachineError: it is one of ONNX Runtime, which is not installed.
    """
    if ONNX not in contents:
        return _build(config, _parse_weights(contents[WEIGHTS], file=directory / WEIGHTS), file=directory / WEIGHTS)
    model = config.run.model
    network = OnnxNetwork(
        contents[ONNX],
        context_length=model.context_length,
        prediction_length=model.prediction_length,
        num_columns=config.num_channels + model.num_time_features,
        num_channels=config.num_channels,
        file=directory / ONNX,
    )
    return network.eval()


def _parse_weights(content: bytes, *, file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        problem = f"is not a table of tensors: {quoted(error)}"
        raise ModelError(Code.MODEL_DAMAGED, problem, fix=RESTORE, file=file) from None


class _Allowance(TorchFunctionMode):
    """While it is entered, torch makes no tensors with more than ``num_elements`` elements in all.

    (The meta device would plan a network without memory, but its first use imports 900 modules in two seconds.)
    """

    FACTORIES = (torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros)

    class ExceededError(Exception):
        """The network asks for more."""

    def __init__(self, num_elements: int) -> None:
        super().__init__()
        self.left = num_elements

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # torch's protocol: any function of torch, with its arguments
        kwargs = kwargs or {}
        if func in self.FACTORIES:
            size = kwargs.get("size", args)
            self.left -= math.prod(size if isinstance(size[0], int) else size[0])
            if self.left < 0:
                raise self.ExceededError
        return func(*args, **kwargs)


def _build(config: BundleConfig, weights: dict[str, Tensor], *, file: Path) -> nn.Module:
    """The network that ``config`` describes, holding ``weights``, in evaluation mode."""
    # Every number of a configuration has a cap, but together they can ask for more than any machine has.  A network
    # that fits its weights needs about as many elements as they have; twice as many leave room for how it is built.
    num_elements = sum(tensor.numel() for tensor in weights.values())
    # Building draws random numbers, which no caller of ours must notice.
    with torch.random.fork_rng(devices=[]):
        try:
            with _Allowance(2 * num_elements + ROOM):
                network = build_network(config.run.model, config.num_channels)
                if config.quantization is not None:
                    network = with_int8_linears(network, config.quantization.activations)
        except _Allowance.ExceededError:
            problem = f"weights have {num_elements:,} numbers, {CONFIG} asks for a network with far more"
            raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file) from None
    asked = network.state_dict()
    weights = _with_scales(weights, asked)
    _compare(asked, weights, file=file)
    network.load_state_dict(weights, strict=True)
    return network.eval().requires_grad_(False)


def _with_scales(weights: dict[str, Tensor], asked: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights``, with the scales of 1 that steps across channels had before they were learned and written."""
    scales = {name: torch.ones_like(tensor) for name, tensor in asked.items() if name.endswith(SCALE)}
    return weights if any(name in weights for name in scales) else scales | weights


def _compare(asked: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, file: Path) -> None:
    """Refuse ``weights`` that are not finite or whose names, shapes or types are not those of ``asked``."""
    differences = {"missing": sorted(set(asked) - set(weights)), "unexpected": sorted(set(weights) - set(asked))}
    problems = [
        f"{len(names)} {kind} ({', '.join(map(quoted, names[:3]))})" for kind, names in differences.items() if names
    ]
    if problems:
        problem = f"weights do not fit {CONFIG}: {' and '.join(problems)}"
        raise ModelError(Code.MODEL, problem, fix=RESTORE, file=file)
    for name, tensor in asked.items():
        if _described(weights[name]) != _described(tensor):
            problem = f"weights hold {quoted(name)} as {_described(weights[name])}, {CONFIG} asks for"
            raise ModelError(Code.MODEL, f"{problem} {_described(tensor)}", fix=RESTORE, file=file)
        if not bool(torch.isfinite(weights[name]).all()):
            problem = f"weights hold NaN or infinite values in {quoted(name)}"
            raise ModelError(Code.MODEL, problem, fix="train again", file=file)


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
