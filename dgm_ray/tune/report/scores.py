"""What studies, comparisons and benchmarks have left in their folders, as rows of one form.

A row of ``scores`` is one training: method, kind, dataset, case (how cells were hidden), mask (which cells; of the
test, and as val_case and val_mask of the validation), seed, seconds, error, folder, and a column for each metric, which
is NaN where it was not measured. A row of ``searches`` is the search of one method: its best trial beside the one that
had the default configuration, both on the validation cells that the search looked at.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from dgm_ray.data import CellHoldout, Files, Holdout
from dgm_ray.errors import ConfigurationError, DGMError, StudyError, nearest
from dgm_ray.evaluation.final_report import METRICS
from dgm_ray.registry import Scope, build
from dgm_ray.space import draws_of, read_draws
from dgm_ray.tasks.imputers import BASELINE, imputer_configuration, imputer_names
from dgm_ray.tune.tracking.reading import RESULTS

REPEATS = "repeats.parquet"  # of a comparison: imputer, seed, validation, test, seconds, error
TUNED, DEFAULT, FIXED, WORST = "tuned", "default", "fixed", "baseline"  # kinds; fixed: changed by hand, nothing drawn
FAILED = ("failed", "diverged", "oom")  # statuses of trials

Rows = list[dict[str, Any]]


@dataclass
class Found:
    """Rows of scores and of searches, and for each folder that has none, why."""

    scores: Rows = field(default_factory=list)
    searches: Rows = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_all(studies: Sequence[str]) -> Found:
    """Read folders, or names of folders below ./results; none: all that are there.

    Raises ConfigurationError for one that is not there, StudyError for one that another program wrote.
    """
    found = Found()
    for folder in [one for study in studies for one in folders_of(study)] if studies else below(RESULTS):
        try:
            read = _read(folder)
        except DGMError as error:
            if str(folder) in studies:
                raise
            found.left_out.append(str(error))
            continue
        found.scores += read.scores
        found.searches += read.searches
        found.left_out += read.left_out
    if not found.scores and not found.left_out:
        raise nothing_there()
    return found


def nothing_there() -> StudyError:
    """Return what is said where there is nothing to read."""
    rule = "there is no study, comparison or benchmark here: name their folders, or run one first"
    return StudyError(str(RESULTS), rule)


def folders_of(study: str) -> list[Path]:
    """Return the folders that a name means: one of a study, comparison or benchmark, or those in it."""
    folder = Path(study) if Path(study).is_dir() else RESULTS / study
    if not folder.is_dir():
        known = [path.name for path in below(RESULTS)]
        rule = f"there is no such folder, nor is it in {RESULTS}{nearest(study, [*known, *map(str, below(RESULTS))])}"
        there = f"; there {'is' if len(known) == 1 else 'are'} {known}" if known else ""
        raise ConfigurationError("STUDY", f"{rule}{there}", study)
    if _is_one(folder):
        return [folder]
    if inner := below(folder):
        return inner
    rule = "is no folder of a study, a comparison (they have a study.json) or a benchmark (it has a runs.jsonl)"
    raise StudyError(str(folder), rule)


def _is_one(folder: Path) -> bool:
    return (folder / "study.json").is_file() or (folder / "runs.jsonl").is_file()


def below(folder: Path) -> list[Path]:
    """Return the folders of studies, comparisons and benchmarks in a folder."""
    return sorted(one for one in folder.iterdir() if one.is_dir() and _is_one(one)) if folder.is_dir() else []


def _read(folder: Path) -> Found:
    if not (folder / "study.json").is_file():
        return _benchmark(folder)
    written = read_study(folder)
    space, metric = written["space"], written["settings"]["metric"]
    if "imputers" in space:
        return _comparison(folder, space, metric, case_of({"factory": "CellHoldout", "arguments": space["data"]}))
    return _study(folder, space, metric, case_of(space["trial"]["arguments"]["data"]))


def read_study(folder: Path) -> dict[str, Any]:
    """Return a folder's study.json: ``space`` and ``settings``. Raises StudyError if a study did not write it."""
    settings = folder / "study.json"
    try:
        written: dict[str, Any] = json.loads(settings.read_text(encoding="utf-8"))
        space, _ = written["space"], written["settings"]["metric"]
        _ = space["data"] if "imputers" in space else space["trial"]["arguments"]["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(str(settings), f"was not written by a study ({type(error).__name__}: {error})") from None
    return written


def read_table(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """Read a table. Raises StudyError for one that is not there yet, or is not as it should be."""
    if not path.is_file():
        raise StudyError(str(path.parent), f"has not ended: there is no {path.name} yet")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StudyError(str(path), f"is no Parquet file ({' '.join(str(error).split())[:80]})") from None
    if lacking := [name for name in needed if name not in table]:
        raise StudyError(str(path), f"was written by another program, or an older one: it has no {lacking[0]!r}")
    return table


def _benchmark(folder: Path) -> Found:
    return Found(
        benchmark_scores(
            read_table(folder / "results.parquet", ("dataset", "mechanism", "rate", "seed", "imputer")), folder
        )
    )


def benchmark_scores(table: pd.DataFrame, folder: Path) -> Rows:
    """Return the rows of a benchmark's results, as ``Grid.run`` returns them."""
    return [
        {
            "method": row["imputer"],
            "kind": WORST if row["imputer"] == BASELINE else DEFAULT,
            "dataset": _name_of_file(Path(row["dataset"])),
            "case": f"{row['mechanism']} {row['rate']:g}",
            "mask": str(row["seed"]),
            "seed": row["seed"],
            "seconds": row["seconds"] if "seconds" in row else float("nan"),
            "error": row["error"] if "error" in row and isinstance(row["error"], str) else "",
            "folder": str(folder),
            **{f"test_{METRICS[name]}": row[name] for name in METRICS if name in row},
        }
        for row in table.to_dict("records")
    ]


def _comparison(folder: Path, space: Mapping[str, Any], metric: str, case: Mapping[str, str]) -> Found:
    found = Found()
    for name, changes in space["imputers"].items():
        if (folder / name / "results.parquet").is_file():
            found.searches += _search(folder / name, name, changes, metric, case)
    baseline = next((row["best"] for row in found.searches if row["method"] == BASELINE), float("nan"))
    found.searches = [row | {"baseline": baseline} for row in found.searches if row["method"] != BASELINE]
    repeats = read_table(folder / REPEATS, ("imputer", "seed", "validation", "test", "seconds", "error"))
    measure = metric.removeprefix("val_")
    for row in repeats.to_dict("records"):
        found.scores.append(
            {
                "method": row["imputer"],
                "kind": kind_of(row["imputer"], space["imputers"][row["imputer"]]),
                **case,
                "val_mask": str(row["seed"]),
                "seed": row["seed"],
                "seconds": row["seconds"],
                "error": row["error"],
                "folder": str(folder),
                f"val_{measure}": row["validation"],
                f"test_{measure}": row["test"],
            }
        )
    return found


def kind_of(imputer: str, changes: Mapping[str, Any]) -> str:
    """Return the kind of an imputer of a comparison. changes: what its file says of it."""
    if imputer == BASELINE:
        return WORST
    if not changes:
        return DEFAULT
    return TUNED if any(draws_of(read_draws(changes))) else FIXED


def _search(
    folder: Path, name: str, changes: Mapping[str, Any], metric: str, case: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    table = read_table(folder / "results.parquet", ("trial", "status", "configuration"))
    if metric not in table:
        return
    arguments = imputer_configuration(name)["arguments"]
    places = {
        (*path.split("."), *inner): None for path, node in changes.items() for inner, _ in draws_of(read_draws(node))
    }
    default = float("nan")
    for row in table.sort_values("trial").to_dict("records"):
        drawn = json.loads(row["configuration"])["arguments"]
        if places and all(_at(drawn, place) == _at(arguments, place) for place in places):
            default = row[metric]
            break
    yield {
        "method": name,
        "dataset": case["dataset"],
        "case": case["val_case"],
        "metric": metric,
        "default": default,
        "best": table[metric].min(),
        "trials": len(table),
        "failed": int(table["status"].isin(FAILED).sum()),
        "seconds": float(table["seconds"].sum()),
        "folder": str(folder),
    }


def _at(node: Any, place: Sequence[str]) -> Any:
    for step in place:
        if not isinstance(node, Mapping) or step not in node:
            return None
        node = node[step]
    return node


def _study(folder: Path, space: Mapping[str, Any], metric: str, case: Mapping[str, str]) -> Found:
    """Read a study: its best trial, or each of the best's seeds; its trials that failed are its search's.

    The measures stand in their order, but for the metric, which is the first.
    """
    table = read_table(folder / "results.parquet", ("trial", "status", "reason", "seconds", "configuration"))
    trial = space["trial"]
    best = table.iloc[0].to_dict()  # they stand best first
    measured = [name for name in table if name.startswith("val_") and not name.endswith("_std")]
    row = {
        "method": method_of(trial),
        "kind": TUNED if any(draws_of(read_draws(trial["arguments"]))) else FIXED,
        **case,
        "seed": 0,
        "seconds": best["seconds"],
        "error": best["reason"] if best["status"] in FAILED else "",
        "folder": str(folder),
    }
    if row["method"] == BASELINE:
        row["kind"] = WORST
    if "seeds" in best and isinstance(best["seeds"], str) and (seeds := json.loads(best["seeds"])):
        each = [{"seed": one["seed"], "seconds": best["seconds"] / len(seeds), **one["measures"]} for one in seeds]
    else:
        each = [{name: best[name] for name in measured}]
    return Found([row | dict(sorted(one.items(), key=lambda item: item[0] != metric)) for one in each])


def method_of(trial: Mapping[str, Any]) -> str:
    """Return a trial's name among the imputers, or else its model's."""
    imputer = trial["arguments"]["imputer"] if "imputer" in trial["arguments"] else None
    factory = imputer["factory"] if isinstance(imputer, Mapping) else None

    def same(known: Mapping[str, Any]) -> bool:
        own = known["arguments"]["imputer"]["factory"] if "imputer" in known["arguments"] else None
        return bool(known["task"] == trial["task"] and own == factory)

    names = [name for name in imputer_names() if same(imputer_configuration(name))]
    return names[0] if len(names) == 1 else factory or str(trial["task"]).removeprefix("Train")


def case_of(node: Any) -> dict[str, str]:
    """Return the dataset, case and mask of a ``data`` section. Raises ConfigurationError for what is none."""
    data: Any = build(node, Holdout | CellHoldout | Files, Scope(), "data")
    if isinstance(data, Files):
        name = _name_of_file(data.train_features)
        return {"dataset": name, "case": "own masks", "val_case": "own masks", "mask": "0", "val_mask": "0"}
    how = _mechanism(data.missing)
    if isinstance(data, Holdout):
        case = f"{how} {_rate(data.missing_probability)} of unseen rows"
        return {"dataset": _name(data.source), "case": case, "val_case": case} | dict.fromkeys(
            ("mask", "val_mask"), str(data.seed)
        )
    test, validation = _rate(data.test_probability), _rate(data.validation_probability)
    seed = data.seed if data.validation_seed is None else data.validation_seed
    return {
        "dataset": _name(data.source),
        "case": f"{how} {test}",
        "val_case": f"{how} {test} + {validation}",
        "mask": str(data.seed),
        "val_mask": str(seed),
    }


def _rate(probability: float | None) -> str:
    return "as seen" if probability is None else f"{probability:g}"


def _mechanism(missing: Any) -> str:
    """Return a mechanism's name with what of it is not as it comes."""
    changed = {
        one.name: getattr(missing, one.name) for one in fields(missing) if getattr(missing, one.name) != one.default
    }
    own = ", ".join(f"{name}={value}" for name, value in changed.items())
    return f"{type(missing).__name__.lower()}{f'({own})' if own else ''}"


def _name(source: Any) -> str:
    """Return a table's name: of its file, of the folder of ``features.npy``, or of the bundled table."""
    for name in ("path", "features"):
        if hasattr(source, name):
            return _name_of_file(Path(getattr(source, name)))
    name = type(source).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("_")


def _name_of_file(path: Path) -> str:
    return path.parent.name if path.name == "features.npy" else path.stem
