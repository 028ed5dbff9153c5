"""MLflow: what a study tells it."""
