"""STanHop-Net in plain torch: contexts in, forecasts out."""
