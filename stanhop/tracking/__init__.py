"""What MLflow is told about a run, and where it keeps it."""
