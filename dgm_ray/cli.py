"""The console script ``dgm-ray``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dgm_ray.errors import one_line_errors
from dgm_ray.tasks.runner import run
from dgm_ray.tune.command import tune

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, tune and judge deep generative models and imputers for tables.",
)
app.command()(tune)
app.command()(run)
data = typer.Typer(no_args_is_help=True, help="Data sets in the original library's files.")
app.add_typer(data, name="data")


@app.command()
def schema() -> None:
    """Print the JSON Schema of search spaces and configurations, for an editor's YAML and JSON support."""
    with one_line_errors():
        import dgm_ray.tune.tasks  # noqa: F401 (registers the tasks that run on Ray)
        from dgm_ray.schema import schema as make_schema
        from dgm_ray.tasks.configuration import load_tasks
        from dgm_ray.tune.settings import Settings

        load_tasks()
        print(json.dumps(make_schema(Settings), indent=2))


@data.command()
def fetch(
    name: Annotated[str, typer.Argument(help="The data set, such as default_of_credit_card_clients.")],
    directory: Annotated[
        Path | None, typer.Option(help="Where the files go; examples/data/NAME by default.", show_default=False)
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder that holds features.npy, labels.npy and metadata.json.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split into train and test rows.")] = 0,
) -> None:
    """Download a data set of the UCI repository and prepare it: scaled, one-hot, split into train and test rows."""
    with one_line_errors():
        from dgm_ray import fetch as fetching

        for path in fetching.fetch(name, directory or Path("examples/data") / name, source, seed):
            print(path)


@data.command("list")
def list_names() -> None:
    """Print the names of the data sets."""
    from dgm_ray.fetch import names

    print("\n".join(names()))


@app.command()
def convert(
    old: Annotated[Path, typer.Argument(help="A pickled scikit-learn scaler of the original library.")],
    new: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    trust: Annotated[bool, typer.Option("--trust", help="You know where OLD comes from.")] = False,
) -> None:
    """Turn a pickled scaler into JSON. Unpickling runs code from the file: use it where a harmful file does no harm."""
    with one_line_errors():
        from dgm_ray.convert import convert as convert_file

        convert_file(old, new, trust)
        print(new)
