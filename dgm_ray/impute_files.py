"""``dgm-ray impute``: a table in a file, completed by a study's winner or by a model that was saved."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from dgm_ray.data import FrameEncoder, Origin
from dgm_ray.data.columns import Categories, Column, Dates, Numbers
from dgm_ray.data.user_files import (
    SEPARATORS,
    checked_suffix,
    own_source,
    read_frame,
    read_kinds,
    read_texts,
    typed,
)
from dgm_ray.errors import ConfigurationError, DataError, ImputerError, nearest
from dgm_ray.estimator import Imputer
from dgm_ray.space import read_file
from dgm_ray.tasks.model_folder import TABLE
from dgm_ray.tasks.progress import steps_shown
from dgm_ray.training import atomic, read_checkpoint, write_checkpoint

CONFIGURATIONS = (".json", ".yaml", ".yml")
_SHOWN = 12  # columns that the summary names


def impute(
    configuration: Path,
    table: Path,
    output: Path,
    console: Console,
    *,
    train: Path | None = None,
    draws: int | None = None,
    save: Path | None = None,
    drop: Sequence[str] = (),
    kinds: Sequence[str] = (),
    seed: int | None = None,
    epochs: int | None = None,
    device: str | None = None,
) -> list[Path]:
    """Write ``table`` completed to ``output``, or ``draws`` completions beside it, and return the paths.

    configuration: what trains (JSON or YAML, or an imputer's name), on ``table`` or on the table ``train``; or a model
    that was saved, or the folder of one that was exported.
    save: where the trained model goes. drop: columns that are not learned from, and stay as they are. kinds:
    ``column=kind``, where another would be inferred. What a study knew of its table (drop, kinds, the label, which it
    did not learn from) or a saved model left out holds as well; ``kinds`` and ``drop`` win over it.

    Raises ConfigurationError or DataError for what does not fit.
    """
    _check_paths(configuration, table, output, train, save)
    frame = read_frame(table)
    _check_dropped(frame, drop, table.name)
    if configuration.suffix.lower() in ("", *CONFIGURATIONS) and not configuration.is_dir():
        given = {"epochs": epochs, "seed": seed or 0, "device": device or "cpu"}
        imputer = Imputer.from_config(configuration, **given)
        place, rows = (table.name, frame) if train is None else (train.name, read_frame(train))
        left_out, imputer.kinds = _known(configuration, rows, frame, drop, read_kinds(kinds), console)
        rows = rows.drop(columns=[name for name in left_out if name in rows])
        FrameEncoder.infer(rows, imputer.kinds, place, option="--drop")  # its errors name the file and the option
        with _naming(place):
            _fit(imputer, rows, console)
    else:
        trained = {"--train": train, "--save": save, "--kind": kinds or None, "--epochs": epochs, "--seed": seed}
        for option, value in trained.items():
            if value is not None:
                raise ConfigurationError(option, f"is for a training, and {configuration.name} is a trained model")
        imputer = Imputer.load(configuration, device)
        left_out = [*drop, *_left_out(configuration, frame, console)]
    if save is not None:
        write_checkpoint(save, imputer.state() | {"left_out": left_out})
    started = time.monotonic()
    left = typed(frame.drop(columns=[name for name in left_out if name in frame]), imputer.encoder_, table)
    imputer.encoder_.check_columns(left, table.name)
    ordered = left[[column.name for column in imputer.encoder_.columns]]
    with _naming(table.name):
        done = [imputer.transform(ordered)] if draws is None else imputer.draws(ordered, draws)
    paths = [output] if draws is None else [output.with_stem(f"{output.stem}-{i + 1}") for i in range(draws)]
    for path, one in zip(paths, done, strict=True):
        _write(path, frame, one, table, imputer.encoder_.columns)
    _summarise(left, paths, time.monotonic() - started, console)
    return paths


def _check_paths(configuration: Path, table: Path, output: Path, train: Path | None, save: Path | None) -> None:
    """Raise unless everything can be read and written, before anything is trained."""
    for path in (table, output, *((train,) if train else ())):
        checked_suffix(path)
    read = [path.resolve() for path in (configuration, table, train) if path is not None]
    for name, path in (("OUT", output), ("--save", save)):
        if path is not None and path.resolve() in read:
            raise ConfigurationError(name, "would overwrite what is read: give another path", str(path))
    if save is not None and save.resolve() == output.resolve():
        raise ConfigurationError("--save", "is OUT: give another path", str(save))
    if save is not None and save.suffix.lower() in ("", *CONFIGURATIONS):
        raise ConfigurationError("--save", "a model needs a name such as model.pt", str(save))
    if configuration.suffix and not configuration.exists():
        raise ConfigurationError(str(configuration), "there is no such configuration or model")


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Put the name of the file where an error says that it is of the table, or of the rows, that were given."""
    try:
        yield
    except ImputerError as error:
        what, colon, inner = error.place.partition(":")
        if what not in ("table", "rows"):
            raise
        raise DataError(f"{place}{colon}{inner}", error.rule, error.value) from None


def _check_dropped(frame: pd.DataFrame, drop: Sequence[str], place: str) -> None:
    for name in drop:
        if name not in frame:
            raise DataError(place, f"there is no column {name!r}{nearest(name, frame.columns)}")


def _left_out(model: Path, frame: pd.DataFrame, console: Console) -> list[str]:
    """Return which columns of a table a saved model was trained without, on purpose."""
    if model.is_dir():
        origin = Origin.read(model / TABLE)
        left_out: Sequence[str] = (*origin.left_out, *((origin.label,) if origin.label else ()))
    else:
        saved = read_checkpoint(model)
        left_out = saved["left_out"] if "left_out" in saved else ()
    ours = [name for name in left_out if name in frame]
    for name in ours:
        console.print(f"  as in training: {name} is left as it is", highlight=False, soft_wrap=True, markup=False)
    return ours


def _known(
    configuration: Path,
    rows: pd.DataFrame,
    frame: pd.DataFrame,
    drop: Sequence[str],
    kinds: Mapping[str, Any],
    console: Console,
) -> tuple[list[str], dict[str, Any] | None]:
    """Return which columns are not learned from, and which are of a kind: as given, else as the study had it.

    rows: to learn from. frame: to complete.
    """
    node = read_file(configuration) if configuration.suffix else {}
    source = own_source(node, str(configuration))
    if source is None:
        return list(drop), dict(kinds) or None
    ours = [*(source.drop or ()), *((source.label,) if source.label is not None else ())]
    ours = [name for name in ours if (name in rows or name in frame) and name not in (*drop, *kinds)]
    theirs = {name: kind for name, kind in (source.kinds or {}).items() if name in rows and name not in (*drop, *kinds)}
    said = [f"{name} is left as it is" for name in ours] + [f"{name} is {kind}" for name, kind in theirs.items()]
    if said:
        console.print(f"  as in the study: {', '.join(said)}", highlight=False, soft_wrap=True, markup=False)
    return [*drop, *ours], {**theirs, **kinds} or None


def _fit(imputer: Imputer, rows: pd.DataFrame, console: Console) -> None:
    """Train, with a line of progress, and say what the columns were taken for."""
    started = time.monotonic()
    epochs = imputer.planned_epochs()
    with steps_shown(epochs, console) as report:
        imputer.fit(rows, report=report)
    for line in imputer.encoder_.summary():
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
    scores = ", ".join(f"{name} {value:.4g}" for name, value in imputer.validation_scores_.items())
    seconds = time.monotonic() - started
    text = f"trained on {len(rows)} rows, {imputer.n_iter_} epochs in {seconds:.1f} s{': ' if scores else ''}{scores}"
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _write(path: Path, frame: pd.DataFrame, done: pd.DataFrame, table: Path, columns: Sequence[Column]) -> None:
    """Write a completed table; from CSV to CSV every observed cell is the text that it was."""
    suffix, own = path.suffix.lower(), table.suffix.lower()
    if suffix in SEPARATORS and own in SEPARATORS:
        made = read_texts(table, SEPARATORS[own])
        for column in columns:
            missing = frame[column.name].isna().to_numpy()
            if missing.any():
                texts = made[column.name].to_numpy(dtype=object, copy=True)
                texts[missing] = _texts(column, frame[column.name], done[column.name], texts)
                made[column.name] = texts
    else:
        made = frame.copy()
        for name in done:
            made[name] = done[name]
    with atomic(path) as temporary:
        if suffix in SEPARATORS:
            named = not isinstance(made.index, pd.RangeIndex)
            made.to_csv(temporary, sep=SEPARATORS[suffix], index=named)
        else:
            made.to_parquet(temporary)


def _texts(column: Column, given: pd.Series, done: pd.Series, texts: Any) -> list[str]:
    """Return the missing cells as text, written as the observed ones are; texts: (rows,), the file's own."""
    observed = given.notna().to_numpy()
    made = done[~observed]
    how = _writer(column, given[observed], texts[observed])
    return [how(value) for value in made]


def _writer(column: Column, observed: pd.Series, texts: Any) -> Callable[[Any], str]:
    if isinstance(column, Categories):
        written: Mapping[Any, str] = dict(zip(observed.tolist()[::-1], texts.tolist()[::-1], strict=True))
        return lambda value: written[value] if value in written else str(value)
    if isinstance(column, Dates):
        first = texts[0] if len(texts) else "2000-01-01"
        form = {10: "%Y-%m-%d", 16: f"%Y-%m-%d{first[10:11]}%H:%M"}.get(len(first))
        return lambda value: str(value.strftime(form) if form else value.isoformat(first[10]))
    assert isinstance(column, Numbers)
    if column.whole:
        return lambda value: str(int(value))
    return lambda value: str(np.float32(value) if column.offset == 0 else value)  # no digits that were not computed


def _summarise(frame: pd.DataFrame, paths: Sequence[Path], seconds: float, console: Console) -> None:
    counts = {str(name): int(frame[name].isna().sum()) for name in frame}
    filled = sorted(((name, count) for name, count in counts.items() if count), key=lambda one: -one[1])
    shown = [f"{name} {count}" for name, count in filled[:_SHOWN]]
    shown += [f"and {len(filled) - _SHOWN} more"] if len(filled) > _SHOWN else []
    text = f"filled {sum(counts.values())} cells of {len(filled)} columns in {seconds:.1f} s"
    console.print(f"{text}{': ' if shown else ''}{', '.join(shown)}", highlight=False, soft_wrap=True, markup=False)
    for path in paths:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True, markup=False)
