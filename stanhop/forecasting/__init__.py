"""From a trained network to forecasts in files: the model directory, the forecaster, batches, errors and plots."""
