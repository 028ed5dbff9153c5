"""A model's folder as an MLflow model: it loads with ``mlflow.pyfunc.load_model``, can be registered and served.

Models-from-code: what runs is ``model_code.py``, beside it lies the folder as ``dgm-ray export`` writes it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dgm_ray.data import Origin
from dgm_ray.data.columns import Column, Numbers
from dgm_ray.data.origin import read_object
from dgm_ray.tasks.model_folder import MODEL, TABLE

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "model"  # of each run's
CODE = Path(__file__).with_name("model_code.py")


def log_model(client: MlflowClient, run_id: str, folder: Path) -> str:
    """Log the model of a folder to a run and return the model's URI. The folder is all that this needs.

    A run has one model: logged again, as when sending was cut, it takes the place of the first.

    The input example is of training rows, with cells that are missing: who may see the model may see them.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    origin, about = Origin.read(folder / TABLE), read_object(folder / MODEL)
    said = {key: about[key] for key in ("model", "can_impute", "can_sample", "epoch")}
    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    begun = client.search_logged_models([experiment], f"source_run_id = '{run_id}'", max_results=1)
    params = {key: str(one) for key, one in said.items()}
    logged = begun[0] if begun else client.create_logged_model(experiment, NAME, run_id, params=params)
    with TemporaryDirectory() as place:
        pyfunc.save_model(
            f"{place}/{NAME}",
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
                metadata=said,
            ),
            python_model=str(CODE),
            artifacts={NAME: str(folder)},
            signature=_signature(origin, conditional=about["conditional"]),
            input_example=origin.example_frame().rename(columns=str),
            pip_requirements=requirements(about["versions"]),  # else MLflow loads the model to see what it imports
        )
        client.log_model_artifacts(logged.model_id, f"{place}/{NAME}")
    client.finalize_logged_model(logged.model_id, "READY")
    if not run.outputs.model_outputs:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return f"models:/{logged.model_id}"


def requirements(versions: Mapping[str, str]) -> list[str]:
    """Return what the model needs where it is used. versions: with which it was written."""
    packages = {name.replace("_", "-"): one for name, one in versions.items() if name != "python"}
    return [f"{name}=={one.partition('+')[0]}" for name, one in packages.items()]


def _signature(origin: Origin, *, conditional: bool) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    columns = [_column(one) for one in origin.encoder.columns]
    label = [ColSpec(AnyType(), origin.label, required=False)] if conditional and origin.label else []
    params = ParamSchema(
        [ParamSpec("sample", "long", 0), ParamSpec("seed", "long", -1), ParamSpec("labels", "string", "")]
    )
    return ModelSignature(inputs=Schema([*columns, *label]), outputs=Schema(columns), params=params)


def _column(column: Column) -> Any:
    """Return a column as MLflow has it, optional. Its integers and booleans cannot be missing, and it turns no integer
    into a float: columns of these may hold anything to MLflow, and the model checks them itself.
    """
    from mlflow.types import ColSpec
    from mlflow.types.schema import AnyType

    kinds: dict[str, Any] = {"text": "string", "dates": "datetime", "numbers": AnyType(), "booleans": AnyType()}
    fractions = isinstance(column, Numbers) and not column.whole
    return ColSpec("double" if fractions else kinds[column.family], str(column.name), required=False)
