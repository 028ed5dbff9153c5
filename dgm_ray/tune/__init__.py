"""Studies: a search space becomes Ray Tune trials, tracked by MLflow. Importing this costs neither ray nor torch."""
