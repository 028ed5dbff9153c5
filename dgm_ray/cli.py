"""The console script ``dgm-ray``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dgm_ray.errors import one_line_errors
from dgm_ray.tasks.runner import run
from dgm_ray.tune.command import tune

if TYPE_CHECKING:
    from rich.console import Console

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


def _wide() -> "Console":
    """Return a console for tables; a file has no width of its own."""
    from rich.console import Console

    return Console() if Console().is_terminal else Console(width=160)


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
        Path, typer.Argument(help="A study's best.json, an imputer's name (gain), or a model of --save or of export.")
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
        from dgm_ray.tune.report.standings import leaderboard as make_leaderboard

        make_leaderboard(studies or [], metric, output, _wide())


TrackingUri = Annotated[
    str | None,
    typer.Option(
        envvar="MLFLOW_TRACKING_URI",
        help="Of MLflow; sqlite:///mlflow.db in this folder by default.",
        show_default=False,
    ),
]
RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN_ID", help="The beginning of a run's id, or its name: 'medgan 003'.", show_default=False
    ),
]


@app.command()
def runs(
    experiment: Annotated[str | None, typer.Option(help="Of MLflow; all by default.", show_default=False)] = None,
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its trials, best first: a study's name, folder or run id.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, metavar="N", help="So many at most.")] = 20,
    tracking_uri: TrackingUri = None,
) -> None:
    """List the last studies that MLflow has, newest first; or the trials of one, best first.

    Examples:

      dgm-ray runs

      dgm-ray runs --study medgan --last 5
    """
    with one_line_errors():
        from dgm_ray.tune.tracking.listing import list_runs
        from dgm_ray.tune.tracking.reading import default_uri

        list_runs(experiment, study, last, tracking_uri or default_uri(), _wide())


@app.command()
def show(run_id: RunId, tracking_uri: TrackingUri = None) -> None:
    """Print all that MLflow has of a trial or a study: figures, parameters, tags, environment, files, what to do next.

    Examples:

      dgm-ray show 3f2a

      dgm-ray show "medgan 003"
    """
    with one_line_errors():
        from dgm_ray.tune.tracking.listing import show_run
        from dgm_ray.tune.tracking.reading import default_uri

        show_run(run_id, tracking_uri or default_uri(), _wide())


@app.command()
def best(
    study: Annotated[
        str, typer.Argument(help="A study's folder, its name below ./results, or its run's name or id in MLflow.")
    ],
    table: Annotated[bool, typer.Option("--table", help="For people, and not JSON.")] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Print the configuration of a study's best trial as JSON, which `dgm-ray run` repeats.

    Examples:

      dgm-ray best medgan > best.json

      dgm-ray best results/medgan --table
    """
    with one_line_errors():
        from dgm_ray.tune.tracking.listing import best_of, print_configuration
        from dgm_ray.tune.tracking.reading import default_uri

        node = best_of(study, tracking_uri or default_uri())
        if table:
            print_configuration(node, _wide())
        else:
            print(json.dumps(node, indent=2))


@app.command()
def export(
    run_id: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID",
            help="The beginning of a run's id, or its name; or a study's folder, or its name below ./results.",
            show_default=False,
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.", show_default=False)],
    tracking_uri: TrackingUri = None,
) -> None:
    """Write a trained model as a folder: configuration, weights, the table's columns, and a script that uses them.

    Of a study it is the best trial's. Neither Ray nor MLflow is needed to use it: `dgm_ray.load(DIR)` completes rows of
    a DataFrame and draws new ones, and `dgm-ray impute DIR IN OUT` completes a file.

    Examples:

      dgm-ray export medgan model

      dgm-ray export 3f2a model

      python model/script.py my_table.csv completed.csv
    """
    with one_line_errors():
        from rich.console import Console

        from dgm_ray.tune.tracking.exporting import export_model
        from dgm_ray.tune.tracking.reading import default_uri

        export_model(run_id, folder, tracking_uri or default_uri(), Console())


@app.command()
def reproduce(
    run_id: RunId,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Compare the first N epochs only, each as it was logged.")
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Run a trial again from what MLflow has of it, and say whether the figures agree; of a study its best trial.

    Data, hidden cells, configuration and seeds are those that were logged; it runs here, in this process.

    The exit code is 0 if they agree, and 1 if they differ: then the likely cause is named.

    Examples:

      dgm-ray reproduce 3f2a

      dgm-ray reproduce medgan --epochs 2
    """
    with one_line_errors():
        from rich.console import Console

        from dgm_ray.tune.tracking.reading import default_uri
        from dgm_ray.tune.tracking.reproduce import reproduce as repeat

        if not repeat(run_id, epochs, tracking_uri or default_uri(), Console()):
            raise SystemExit(1)


@app.command()
def verify_lanes(
    space: Annotated[Path, typer.Argument(help="A search space: YAML or JSON with `tune` and `trial`.")],
    lanes: Annotated[int, typer.Option(min=2, help="How many train together.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Of all phases together.")] = 20,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any value of the file: trial.arguments.batch_size=32."),
    ] = None,
) -> None:
    """Train some configurations of SPACE alone and as lanes, from the same weights, with the same rows and noise.

    It prints how far losses and weights are from each other after each step; rounding leaves about 1e-7, which grows
    as training goes on. The exit code is 0 if there is no more than that, and 1 otherwise.

    Examples:

      dgm-ray verify-lanes search_spaces/gan.yaml

      dgm-ray verify-lanes search_spaces/gain.yaml --lanes 16 --steps 100
    """
    with one_line_errors():
        from rich.console import Console

        from dgm_ray.tune.verify import verify_lanes as verify

        if not verify(space, assignments or [], lanes, steps, Console()):
            raise SystemExit(1)


@app.command()
def report(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY]...",
            help="Folders of studies and comparisons, or names below ./results; all of these by default.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write report.html into a study's folder: one page with figures that loads nothing, made from the folder alone.

    What was searched, the trials, which knobs mattered, learning curves, errors by variable, true against generated
    cells and their associations, some completed rows, what it took, and where it ran.

    A study writes it at its end; this makes it again, as of a comparison, with a page for each of its imputers.

    Examples:

      dgm-ray report medgan

      dgm-ray report results/medgan results/imputers
    """
    with one_line_errors():
        from rich.console import Console

        from dgm_ray.tune.report.study_page import report as write_reports

        write_reports(studies or [], Console())


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
