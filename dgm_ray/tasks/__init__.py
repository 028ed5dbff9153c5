"""Tasks: what a configuration can run alone. Importing this costs neither torch nor ray."""
