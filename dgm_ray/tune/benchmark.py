"""The command ``dgm-ray benchmark imputation``: what its options mean, and what it prints."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from dgm_ray.data import BreastCancer, Digits, Npy, Source, Wine
from dgm_ray.data.user_files import source_node
from dgm_ray.errors import ConfigurationError, UnfinishedError, nearest
from dgm_ray.registry import Scope, build
from dgm_ray.tasks.imputers import BASELINE, imputer_configuration, imputer_names
from dgm_ray.tune.imputation_grid import MECHANISMS, Case, Grid, Run
from dgm_ray.tune.report.scores import Found, benchmark_scores
from dgm_ray.tune.report.standings import FIRST, Standings, write

BUNDLED: dict[str, Callable[[], Source]] = {"breast_cancer": BreastCancer, "wine": Wine, "digits": Digits}


def benchmark_imputation(
    datasets: str,
    mechanisms: str,
    rates: str,
    imputers: str,
    seeds: int,
    output: Path,
    workers: int,
    timeout: float | None,
    address: str | None = None,
) -> None:
    """Run the grid, print its table and write its files.

    Raises ConfigurationError or DataError for what an option names and is not there, before anything is run;
    UnfinishedError if a run failed.
    """
    sources = {name: source_of(name) for name in _items(datasets, "--datasets")}
    hidden = [(name, rate) for name in _items(mechanisms, "--mechanisms") for rate in _rates(rates)]
    for name, _ in hidden:
        if name not in MECHANISMS:
            known = ", ".join(MECHANISMS)
            raise ConfigurationError("--mechanisms", f"should be of {known}{nearest(name, MECHANISMS)}", name)
    names = imputer_names() if imputers == "all" else _items(imputers, "--imputers")
    for name in names:
        imputer_configuration(name, "--imputers")
    names = names if BASELINE in names else [BASELINE, *names]
    cases = [Case(name, one, rate, seed) for name in sources for one, rate in hidden for seed in range(seeds)]
    for case in cases:
        if case.seed == 0:
            case.prepare(sources[case.dataset])  # a table or a rate that will not do is found before anything is run
    grid = Grid(sources, [Run(case, name) for case in cases for name in names], output)
    console = Console() if Console().is_terminal else Console(width=160)
    runs = len(cases) * len(names)
    console.print(f"{runs} runs, {runs - len(grid)} are in {output} already", highlight=False)
    if len(grid):
        from dgm_ray.tune.cluster import start_ray
        from dgm_ray.tune.settings import Resources

        start_ray(Resources(), address)
    results = grid.run(console, workers, timeout)
    standings = Standings(Found(benchmark_scores(results, output)), FIRST)
    write(results, standings.page(), output, "results")
    standings.page(short=True).print(console)
    for name in ("results.md", "results.html", "results.parquet"):
        console.print(str(output / name), highlight=False, soft_wrap=True)
    failed = int(results["error"].notna().sum()) if "error" in results else 0
    if failed:
        raise UnfinishedError("benchmark", f"{failed} of {len(results)} runs failed; the same command tries them again")


def source_of(name: str) -> Source:
    """Return the source of a bundled table, a file or a folder. Raises ConfigurationError if there is none."""
    path = Path(name)
    if name in BUNDLED:
        return BUNDLED[name]()
    if path.is_dir():
        return Npy(path / "features.npy", path / "metadata.json")
    if not path.exists():
        rule = f"should be of {', '.join(BUNDLED)}, a file or a folder{nearest(name, BUNDLED)}"
        raise ConfigurationError("--datasets", rule, name)
    made: Source = build(source_node(path), Source, Scope(), "--datasets")
    return made


def _items(text: str, option: str) -> list[str]:
    items = list(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))
    if not items:
        raise ConfigurationError(option, "should name one at least", text)
    return items


def _rates(text: str) -> list[float]:
    rates = []
    for item in _items(text, "--rates"):
        try:
            rates.append(float(item))
        except ValueError:
            raise ConfigurationError("--rates", "should be numbers with commas between", item) from None
        if not 0 < rates[-1] < 1:
            raise ConfigurationError("--rates", "should be above 0 and below 1", rates[-1])
    return rates
