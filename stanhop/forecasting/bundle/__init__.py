"""The model directory: everything that forecasting needs, in files that hold plain data and no code.

``manifest.json`` lists the other files with size and SHA-256, ``config.json`` holds the resolved configuration,
``model.safetensors`` the weights, ``scaler.json`` the scales of every series, and ``intervals.json``, if there is one,
the offsets of prediction intervals.  (A network that ONNX Runtime computes is ``model.onnx`` instead of weights: see
``stanhop.model.onnx``.)  Loading opens no pickle, imports no name found in a file and opens no socket; it never follows
a symlink and never opens a file that the manifest does not list.  Checksums find damage; safety from hostile files
rests on there being no way to run anything.

What may stand in the files is in ``files`` and ``manifest``, the network's own file in ``network``, and the two ways in
``load`` and ``save``; all that others need is imported from here.
"""

from __future__ import annotations

from stanhop.forecasting.bundle.bundle import Bundle
from stanhop.forecasting.bundle.files import ONNX
from stanhop.forecasting.bundle.load import load_bundle
from stanhop.forecasting.bundle.save import bundle_bytes, bundle_digest, save_bundle

__all__ = ["ONNX", "Bundle", "bundle_bytes", "bundle_digest", "load_bundle", "save_bundle"]
