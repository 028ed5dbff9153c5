"""What MLflow runs to serve a model's folder: it is copied beside the folder, so that nothing is pickled."""

from typing import Any

import mlflow
import pandas as pd

import dgm_ray


class Served(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A model of ``dgm-ray export`` as MLflow calls it."""

    def load_context(self, context: Any) -> None:
        """Read the folder, once."""
        self.model = dgm_ray.load(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the rows completed; or with ``params={"sample": n}`` n new rows.

        params: also seed, of the new rows (below 0: others each time), and labels, the class of all rows, of a
        conditional model, whose rows may have it in their own column as well.
        """
        given: dict[str, Any] = {"sample": 0, "seed": -1, "labels": ""} | (params or {})
        labels = given["labels"] or None
        if given["sample"] or not self.model.can_impute:
            return self.model.sample(given["sample"], None if given["seed"] < 0 else given["seed"], labels)
        origin = self.model.origin
        names = {str(one.name): one.name for one in origin.encoder.columns}
        rows = model_input.rename(columns=names)
        if self.model.conditional and origin.label in rows:
            labels = labels or rows[origin.label]
        return self.model.impute(rows.reindex(columns=list(names.values())), labels)  # a column may be absent


mlflow.models.set_model(Served())
