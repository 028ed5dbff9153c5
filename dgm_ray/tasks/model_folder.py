"""The files of a model's folder. Importing this costs no torch: whoever but sends a folder to MLflow needs none."""

CONFIGURATION = "configuration.json"  # what trained it
TABLE = "table.json"  # the columns of its table, their scaling, means and modes, a few rows as an example
WEIGHTS = "weights.pt"  # its best weights
SCRIPT = "script.py"  # how to use it
MODEL = "model.json"  # versions, the best epoch's figures, and the SHA-256 of the first three
