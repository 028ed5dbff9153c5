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
        from dgm_ray.tasks.imputers import imputer_names
        from dgm_ray.tune.settings import Settings

        load_tasks()
        print(json.dumps(make_schema(Settings, imputer_names()), indent=2))


@app.command()
def impute(
    configuration: Annotated[
        Path, typer.Argument(help="A study's best.json, an imputer's name (gain), or a model that --save wrote.")
    ],
    table: Annotated[Path, typer.Argument(metavar="IN", help="Your table with missing cells: .csv, .tsv or .parquet.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The completed table: .csv, .tsv or .parquet.")],
    train: Annotated[Path | None, typer.Option(metavar="TABLE", help="Train on this table, and not on IN.")] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Write N completions, OUT-1 to OUT-N: multiple imputation.")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="MODEL", help="Keep the trained model for other tables.")] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Not to learn from, as an id; it stays as it is.")
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="COLUMN=KIND", help="numerical, binary or categorical, if not as inferred."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the training and of draws; 0 by default.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the configuration's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto.")] = None,
) -> None:
    """Fill the missing cells of a table: observed cells stay as they are, types and units too.

    Examples:

      dgm-ray impute results/miss_forest/best.json my_table.csv completed.csv --save model.pt

      dgm-ray impute model.pt new_rows.csv completed.csv --draws 5

      dgm-ray impute miss_forest my_table.csv completed.csv
    """
    with one_line_errors():
        from rich.console import Console

        from dgm_ray.impute_files import impute as impute_file

        impute_file(
            configuration,
            table,
            output,
            Console(),
            train=train,
            draws=draws,
            save=save,
            drop=drop or (),
            kinds=kinds or (),
            seed=seed,
            epochs=epochs,
            device=device,
        )


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


benchmark = typer.Typer(no_args_is_help=True, help="Compare what the library has, on many tables.")
app.add_typer(benchmark, name="benchmark")


@benchmark.command()
def imputation(
    datasets: Annotated[
        str,
        typer.Option(help="With commas: breast_cancer, wine, digits, a CSV or Parquet file, a folder of .npy files."),
    ] = "breast_cancer,wine",
    mechanisms: Annotated[str, typer.Option(help="With commas: mcar, mar, mnar, blocks.")] = "mcar",
    rates: Annotated[str, typer.Option(help="Shares of the cells to hide, with commas.")] = "0.2",
    imputers: Annotated[str, typer.Option(help="Names with commas, or all.")] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Masks and first weights of each case.")] = 5,
    output: Annotated[Path, typer.Option(help="The folder of the results.")] = Path("results/imputation"),
    workers: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 2,
    timeout: Annotated[float | None, typer.Option(help="Seconds that one imputer may take.")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; Ray starts here by default.")] = None,
) -> None:
    """Compare imputers, each with its own default configuration, on every table, mechanism, rate and seed.

    Prints a table with ranks, and writes it as results.md and results.html; every run is in results.parquet.

    The same command goes on where it was stopped: what has been done is not done again.
    """
    with one_line_errors():
        from dgm_ray.tune.benchmark import benchmark_imputation

        benchmark_imputation(datasets, mechanisms, rates, imputers, seeds, output, workers, timeout, address)


@app.command()
def leaderboard(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY]...",
            help="Folders of studies, comparisons and benchmarks, or names below ./results; all of these by default.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="test_imputation_rmse if there is one, or else what most have.", show_default=False),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the files.")] = Path("leaderboard"),
) -> None:
    """Rank what was found, over data sets, masks and seeds.

    Prints mean ± 95% interval, ranks, distance to means and modes, seconds, failures, and what tuning gave.

    Over 3 data sets: Friedman's test and a critical-difference diagram; over 6: signed-rank tests, corrected by Holm.

    Writes leaderboard.html with figures, one file that loads nothing, leaderboard.md, and leaderboard.parquet.

    Examples:

      dgm-ray leaderboard

      dgm-ray leaderboard results/imputation results/imputers --output comparison

      dgm-ray leaderboard gan medgan --metric val_marginal_distance
    """
    with one_line_errors():
        from rich.console import Console

        from dgm_ray.tune.report.standings import leaderboard as make_leaderboard

        console = Console() if Console().is_terminal else Console(width=160)
        make_leaderboard(studies or [], metric, output, console)


@app.command()
def sync(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY...",
            help="Folders of studies and comparisons, names below ./results, or URIs of folders.",
            show_default=False,
        ),
    ],
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            envvar="MLFLOW_TRACKING_URI", help="Of MLflow; the one that the study had by default.", show_default=False
        ),
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that MLflow may take without any progress.")] = 30.0,
) -> None:
    """Send to MLflow what it has not got of studies: its server was down, or the study was killed.

    What was sent before is not sent again. With another --tracking-uri all is sent there.

    Examples:

      dgm-ray sync medgan

      dgm-ray sync results/medgan s3://bucket/studies/gan --tracking-uri http://localhost:5000
    """
    with one_line_errors():
        from dgm_ray.tune.tracking.sync import sync as send

        send(studies, tracking_uri, wait, print)


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
