"""The command line of a study. Nothing heavy is imported until the options are read."""

import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dgm_ray.errors import ConfigurationError, one_line_errors

if TYPE_CHECKING:
    from rich.console import Console

    from dgm_ray.data import Prepared
    from dgm_ray.tune.comparison import Comparison
    from dgm_ray.tune.place import Place
    from dgm_ray.tune.study import Rehearsal, Study

Space = Annotated[
    Path,
    typer.Argument(
        help="A search space: YAML or JSON with `tune` and `trial`; or a comparison, with `imputers`.",
        show_default=False,
    ),
]


def tune(
    space: Space,
    check: Annotated[
        bool, typer.Option("--check", help="Check the whole space, say what would be searched, and start nothing.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Check, try a few steps of at most 8 structures here, say what it would take, and start nothing.",
        ),
    ] = False,
    samples: Annotated[int | None, typer.Option(min=1, help="How many draws; instead of tune.samples.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the search; instead of tune.seed.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any value of the file: trial.arguments.epochs=5."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--data", help="Your own table (.csv, .tsv, .parquet) for the file's source."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="The column of --data with the rows' classes.")] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column of --data to leave out, as an id.")
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="COLUMN=KIND", help="numerical, binary or categorical, if not as inferred."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the study; the file's name by default.")] = None,
    storage: Annotated[
        str, typer.Option(help="Where the study gets a folder: a folder, or an URI of pyarrow's such as s3://bucket/x.")
    ] = "results",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study of this name.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the study of this name first.")] = False,
    address: Annotated[
        str | None,
        typer.Option(
            help="Of a Ray cluster (auto: the one of this node; local: none); RAY_ADDRESS, or else Ray starts here."
        ),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(envvar="MLFLOW_TRACKING_URI", help="Of MLflow; sqlite:///mlflow.db in this folder by default."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say errors, and at the end what is best and where.")] = False,
) -> None:
    """Search SPACE with Ray Tune and compare what was found in MLflow; or compare all imputers on one table.

    Shows what runs, and prints a line for each trial that ends, the best beside means and modes, and the winner's
    figures on test cells.

    Writes best.json, which `python -m dgm_ray.tasks.runner` repeats, results.parquet, imputation.csv by variable, and
    report.html, a page about all of it.

    --plan tells the time and the memory of a trial, how many fit side by side on this machine, and the time of all.

    Ctrl-C stops neatly: what is there is summarised, and --resume goes on, after whatever ended it.

    --resume --samples 40 gives a study that has fewer trials, ended or not, 40.

    Examples:

      python -m dgm_ray.tune search_spaces/medgan.yaml --check

      python -m dgm_ray.tune search_spaces/medgan.yaml --plan --samples 100

      python -m dgm_ray.tune search_spaces/medgan.yaml --samples 8 --name short

      python -m dgm_ray.tune search_spaces/miss_forest.yaml --data my_table.csv --label class --drop id

      python -m dgm_ray.tune search_spaces/imputers.yaml --data my_table.csv --samples 4
    """
    started = time.monotonic()
    with one_line_errors():
        if resume and overwrite:
            raise ConfigurationError("--resume", "does not go with --overwrite")
        for option, value in (("--label", label), ("--drop", drop), ("--kind", kinds)):
            if value and table is None:
                raise ConfigurationError(option, "names a column of --data, which is not given", value)
        _quiet()
        from dgm_ray.data.user_files import read_kinds, source_node
        from dgm_ray.tune.comparison import Comparison, is_comparison
        from dgm_ray.tune.place import Place
        from dgm_ray.tune.study import Study
        from dgm_ray.tune.tracking.reading import default_uri

        source = None if table is None else source_node(table, label, drop or (), read_kinds(kinds or ()))
        kind = Comparison if is_comparison(space) else Study
        searched = kind.read(space, assignments or [], source=source, samples=samples, seed=seed)
        uri = tracking_uri or default_uri()
        place = Place.of(storage, name or space.stem, uri, resume=resume, overwrite=overwrite)
        code = (
            _foresee(searched)
            if plan
            else _check(searched)
            if check
            else _run(searched, place, address, started, quiet=quiet)
        )
    gc.freeze()  # this process ends: looking through all its objects for garbage takes Python more than a second
    raise SystemExit(code)


def _check(searched: "Study | Comparison") -> int:
    from dgm_ray.tune.study import Study

    if isinstance(searched, Study):
        _checked(searched, _console(), draws=True)
    else:
        _compared(searched, _console(), draws=True)
    return 0


def _foresee(searched: "Study | Comparison") -> int:
    """Say what it would take."""
    from dgm_ray.tune import forecast
    from dgm_ray.tune.study import Study

    console, settings = _console(), searched.settings
    say = _printer(console)
    if isinstance(searched, Study):
        if searched.route.streams:
            rule = "--plan tries steps on rows in memory, so set it to memory"
            raise ConfigurationError("tune.data.mode", rule, settings.data.mode)
        data = _checked(searched, console)
        found = forecast.forecast(searched, data)
        said = forecast.lines(found, forecast.room(settings, data))
    else:
        data, studies = _compared(searched, console)
        each = {name: forecast.forecast(study, data, most=2) for name, study in studies.items()}
        said = forecast.comparison_lines(each, searched.repeats, forecast.room(settings, data))
    if settings.resources.on_gpu and not forecast.gpu_here():
        say("there is no GPU on this machine: times are the processor's")
    for line in said:
        say(line)
    return 0


def _run(
    searched: "Study | Comparison", place: "Place", address: str | None, started: float, *, quiet: bool = False
) -> int:
    from dgm_ray.tune.study import Study
    from dgm_ray.tune.tracking.address import check_uri
    from dgm_ray.tune.tracking.sender import sender_of

    check_uri(place.tracking_uri)
    place.check("trial" if isinstance(searched, Study) else "imputers")
    if place.resume and isinstance(searched, Study):
        _check_resumed(searched, place)
    sender_of(place.tracking_uri)  # it takes seconds to start
    from dgm_ray.tune.cluster import start_ray

    console = _console(quiet=quiet)
    with ThreadPoolExecutor(1) as aside:  # Ray takes seconds to start, most of which it waits
        ready = aside.submit(_ready, searched, console)
        start_ray(searched.settings.resources, address)
        run = ready.result()
    return run(place, started)


def _check_resumed(study: "Study", place: "Place") -> None:
    """Raise an error if a study that is resumed is another one now, or shall have fewer trials than it has."""
    from dgm_ray.tune.journal import Decisions

    place.check_unchanged(study.node, study.resolved())
    there = Decisions(place.journal).trials
    if study.trials < there:
        rule = f"this study has {there} trials already, and goes on with at least as many (--samples)"
        raise ConfigurationError("tune.samples", rule, study.settings.samples)


def _console(*, quiet: bool = False) -> "Console":
    from rich.console import Console

    console = Console(quiet=quiet)
    return console if console.is_terminal else Console(width=120, quiet=quiet)  # a log has no width of its own


def _ready(searched: "Study | Comparison", console: "Console") -> Callable[["Place", float], int]:
    """Check a study or a comparison, import what it needs when Ray is there, and return what runs it."""
    from dgm_ray.tune.study import Study

    if isinstance(searched, Study):
        data = _checked(searched, console)
    else:
        data, studies = _compared(searched, console)
    from dgm_ray.tune.compare import Compare
    from dgm_ray.tune.run import run_study

    if isinstance(searched, Study):
        held = [data]  # whoever runs it has the only one, and can let it go
        del data
        return lambda place, started: run_study(searched, held.pop(), place, console, started)
    return lambda place, started: Compare(searched, data, studies, place, console).run(started)


def _checked(study: "Study", console: "Console", *, draws: bool = False) -> "Prepared":
    """Read the data, build the corners of the space, and say what would be searched."""
    data = study.prepare()
    rehearsal = study.rehearse(data)
    rows = [part.rows if part else 0 for part in (data.train, data.validation, data.test)]
    say = _printer(console)
    say(f"{study.path}: {_size(study, rehearsal)}")
    say(f"{_width(data)}; {rows[0]} rows to train, {rows[1]} to validate, {rows[2]} to test")
    say(f"  {study.route.line}")
    for line in data.encoder.summary() if data.encoder else ():
        say(f"  {line}")
    for label, (_, draw) in study.plan.draws.items() if draws else ():
        say(f"  {label}: {draw}")
    for dead in rehearsal.dead:
        say(f"has no effect: {dead}")
    for line in rehearsal.lanes:
        say(line)
    if warning := study.settings.scheduler.warning(study.epochs, study.trials):
        say(f"warning: {warning}")
    return data


def _compared(
    comparison: "Comparison", console: "Console", *, draws: bool = False
) -> "tuple[Prepared, dict[str, Study]]":
    """Read the data, build the corners of every space, and say what would be searched."""
    from dgm_ray.tasks.progress import some

    data = comparison.prepare()
    for seed in comparison.seeds:  # a table of which a repeat would hide all of a column is found now
        comparison.prepare(seed)
    assert data.test is not None
    studies = comparison.studies(data)
    rehearsals = {name: study.rehearse(data) for name, study in studies.items()}
    shares = [part.hidden_mask.mean() for part in (data.validation, data.test)]
    trials, say = sum(study.trials for study in studies.values()), _printer(console)
    counts = (
        f"{some(len(studies), 'imputer')}, {some(trials, 'trial')}, then each best {some(comparison.repeats, 'time')}"
    )
    say(f"{comparison.path}: {counts} again")
    hidden = f"{shares[0]:.1%} of the cells are hidden to validate, {shares[1]:.1%} to test ({comparison.mechanism})"
    say(f"{_width(data)}; {len(data.train.features)} rows; {hidden}")
    for line in data.encoder.summary() if data.encoder else ():
        say(f"  {line}")
    for name, study in studies.items():
        if draws:
            say(f"{name}: {_size(study, rehearsals[name])}")
        for label, (_, draw) in study.plan.draws.items() if draws else ():
            say(f"  {label}: {draw}")
        for dead in rehearsals[name].dead:
            say(f"{name}: has no effect: {dead}")
        for line in rehearsals[name].lanes:
            say(f"{name}: {line}")
    return data, studies


def _size(study: "Study", rehearsal: "Rehearsal") -> str:
    from dgm_ray.tasks.progress import some

    sizes = f", {rehearsal.fewest_parameters} to {rehearsal.most_parameters} parameters"
    counts = f"{some(len(study.plan.draws), 'draw')}, {some(study.trials, 'trial')} of at most "
    counts += some(study.epochs, "epoch") + study.plan.of_seeds
    return f"{study.plan.template['task']}, {counts}{sizes if rehearsal.most_parameters else ''}"


def _width(data: "Prepared") -> str:
    return f"data: {data.metadata.num_variables} variables, {data.metadata.num_features} features"


def _printer(console: "Console") -> Callable[[str], None]:
    return lambda line: console.print(line, highlight=False, soft_wrap=True, markup=False)


def _quiet() -> None:
    """Set what Ray and MLflow read from the environment before they are imported; a user's own value wins."""
    for name, value in (
        ("RAY_AIR_NEW_OUTPUT", "0"),  # the summary is ours
        ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1"),  # trials without a GPU see none
        ("RAY_CHDIR_TO_TRIAL_DIR", "0"),
        ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"),  # MLflow and results.parquet have it all
        ("TUNE_DISABLE_SIGINT_HANDLER", "1"),  # ours tells Ctrl-C from SIGTERM
        ("TUNE_GLOBAL_CHECKPOINT_S", "3600"),  # the journal has what a resume needs
        ("TUNE_MAX_PENDING_TRIALS_PG", "200"),  # how many run at a time is ours to say
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
    ):
        os.environ.setdefault(name, value)
