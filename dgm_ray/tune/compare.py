"""Run a comparison: search each imputer's space, repeat each best, and rank them on the driver, which has the test."""

import json
import math
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import pandas as pd
import ray
from rich.console import Console

from dgm_ray.data import Csv, Parquet, Prepared
from dgm_ray.errors import UnfinishedError
from dgm_ray.evaluation import Floats
from dgm_ray.evaluation.imputation_report import overall
from dgm_ray.tasks.progress import some
from dgm_ray.training import atomic, write_json
from dgm_ray.tune.cluster import check_nodes, placed
from dgm_ray.tune.comparison import Comparison
from dgm_ray.tune.data import Shared
from dgm_ray.tune.live import figure
from dgm_ray.tune.outcomes import best_first, reasons
from dgm_ray.tune.parallel import Worker, one_line
from dgm_ray.tune.place import Place
from dgm_ray.tune.report.leaderboard import leaderboard, page_of, winner_of
from dgm_ray.tune.report.scores import REPEATS
from dgm_ray.tune.report.standings import write
from dgm_ray.tune.run import command, log_found, means_of, print_lines, repeat_line, search
from dgm_ray.tune.runs import Journal, Row, Runs
from dgm_ray.tune.study import Study
from dgm_ray.tune.tracking.environment import environment
from dgm_ray.tune.tracking.tracker import Tracker

METRIC = "val_imputation_"
LOG_SECONDS = 30.0  # between two lines of progress, where there is no terminal


@dataclass(frozen=True)
class Repeat:
    """One more training of an imputer's best. case: the seed of the validation cells and of the model."""

    imputer: str
    case: int
    configuration: dict[str, Any]
    data_hash: str

    @property
    def label(self) -> str:
        return f"{self.imputer}, seed {self.case}"

    @property
    def key(self) -> str:
        return f"repeat {self.label}, {_digest(self.configuration, self.data_hash)}"


class Compare:
    """A comparison that is run, on the Ray that was started.

    data: with the test cells, which stay here. studies: of each imputer.
    """

    def __init__(
        self, comparison: Comparison, data: Prepared, studies: Mapping[str, Study], place: Place, console: Console
    ) -> None:
        self._comparison, self._data, self._studies = comparison, data, studies
        self._place, self._console = place, console
        self._hash = data.content_hash()
        self._trackers: list[Tracker] = []
        self._measure = comparison.settings.metric.removeprefix(METRIC)

    def run(self, started: float) -> int:
        """Run what is not done yet and write what was found. Return the exit code: 0, or 128 plus what stopped it.

        started: when, by time.monotonic. Raises UnfinishedError if no imputer got to the end.
        """
        try:
            return self._run(started)
        finally:
            self._settle()

    def _run(self, started: float) -> int:
        files = sorted({path for study in self._studies.values() for path in study.files})
        check_nodes(files, self._place.storage)
        self._place.claim(self._comparison.node, self._resolved)
        self._shared = Shared(replace(self._data, test=None))
        self._journal = Journal(self._place.folder / "runs.jsonl", self._place.publish)
        means = means_of(self._data)[f"{METRIC}{self._measure}"]
        self._say(f"means and modes: {METRIC}{self._measure} {means:.4g}")
        searched: dict[str, Row] = {}
        for number, (name, study) in enumerate(self._studies.items(), 1):
            key = f"search {name}, {_digest(study.node, study.resolved(), self._hash)}"
            before = self._done(key)
            searched[name], signal = (before, 0) if before else self._searched(name, study, key)
            if signal:
                self._say(f"stopped: {number - 1} of {len(self._studies)} imputers are searched; --resume goes on")
                return 128 + signal
            line = f"{self._line(searched[name])}{'  (done before)' if before else ''}"
            self._say(f"{number:3d} of {len(self._studies)}  {name}  {line}")
        repeats = self._repeated(searched)
        self._write_repeats(searched, repeats)
        self._finish(searched, leaderboard(searched, repeats), started)
        return 0

    @property
    def _resolved(self) -> dict[str, Any]:
        resolved = next(iter(self._studies.values())).resolved()
        own = {name: study.resolved() for name, study in self._studies.items()}
        settings = self._comparison.settings
        return resolved | {"seeds": settings.seeds, "repeats": self._comparison.repeats, "imputers": own}

    def _done(self, key: str) -> Row | None:
        """Return what a search found that has ended; one that failed is tried again."""
        row = self._journal.done[key] if key in self._journal.done else None
        return None if row is None or "error" in row else row

    def _searched(self, name: str, study: Study, key: str) -> tuple[Row, int]:
        """Return the ``trials`` and ``seconds`` of a search, and its ``score`` and ``best``, or its ``error``.

        Return also the signal that stopped it, or 0.
        """
        place = self._place_of(name, study, key)
        tracker = self._tracker(place)
        tags = {"comparison": self._place.folder.name}
        started = time.monotonic()
        try:
            found = search(study, self._shared, place, tracker, self._console, tags=tags, lines=False)
        except Exception as error:  # the others go on
            tracker.close("FAILED")
            row: Row = {"trials": study.trials, "seconds": time.monotonic() - started, "error": one_line(error)}
        else:
            log_found(tracker, study, place, found)
            tracker.close(found.status)
            if found.signal:
                return {}, found.signal
            ranked = best_first(found.outcomes)
            row = {"trials": len(found.outcomes), "seconds": sum(one.seconds for one in found.outcomes)}
            if ranked:
                row |= {"score": ranked[0].score, "best": json.loads(place.best.read_text(encoding="utf-8"))}
            else:
                row |= {"error": next(iter(reasons(found.outcomes)), "there was no trial")}
        self._journal.add(key, row)
        return row, 0

    def _place_of(self, name: str, study: Study, key: str) -> Place:
        """Return where an imputer's study is; one that was cut short goes on, if it is still the same."""
        place = self._place.inside(name)
        cut = place.settings.exists() and key not in self._journal.done and place.journal.exists()
        wanted = {"space": study.node, "settings": study.resolved(), "data": self._shared.content_hash}
        same = cut and place.written() == json.loads(json.dumps(wanted))
        return replace(place, resume=True) if same else place

    def _line(self, row: Row) -> str:
        seconds = f"{some(row['trials'], 'trial')} in {row['seconds']:.1f} s"
        if "error" in row:
            return f"{row['error']}  ({seconds})"
        return f"{self._comparison.settings.metric} {figure(row['score'])}  best of {seconds}"

    def _repeated(self, searched: Mapping[str, Row]) -> dict[str, list[Row]]:
        """Train each best again; return what each repeat gave, by imputer."""
        best = {name: row["best"] for name, row in searched.items() if "error" not in row}
        runs = [
            Repeat(name, seed, self._seeded(configuration, seed), self._hash)
            for seed in self._comparison.seeds  # one after the other, so that each table is in memory but once
            for name, configuration in best.items()
        ]
        waiting = Runs(runs, self._journal, self._comparison.prepare, self._scores)
        self._say(
            f"then each best {some(self._comparison.repeats, 'time')} again, with other validation cells and seeds"
        )
        found = waiting.rows(self._console, self._workers(), log_every=LOG_SECONDS)
        pairs = list(zip(runs, found, strict=True))
        return {name: [row for run, row in pairs if run.imputer == name] for name in searched}

    def _write_repeats(self, searched: Mapping[str, Row], repeats: Mapping[str, list[Row]]) -> None:
        """Write a row for each repeat; an imputer whose search failed has one with its error."""
        empty = {"validation": math.nan, "test": math.nan, "seconds": math.nan, "error": ""}
        rows = [
            {"imputer": name, "seed": seed, **empty, **row}
            for name, found in repeats.items()
            for seed, row in zip(self._comparison.seeds, found or [{"error": searched[name]["error"]}], strict=False)
        ]
        with atomic(self._place.folder / REPEATS) as temporary:
            pd.DataFrame(rows).to_parquet(temporary, index=False)

    def _seeded(self, best: Mapping[str, Any], seed: int) -> dict[str, Any]:
        return {"task": best["task"], "arguments": best["arguments"] | {"seed": seed}}

    def _scores(self, data: Prepared, completed: Floats) -> Row:
        assert data.test is not None
        parts = {"validation": data.validation, "test": data.test}
        return {name: overall(data.metadata, completed, part)[self._measure] for name, part in parts.items()}

    def _workers(self) -> list[Worker]:
        """Return as many as there are trials at a time; those with a GPU share the GPUs."""
        resources, there = placed(self._comparison.settings.resources), ray.cluster_resources()
        fitting = int(there["CPU"] / resources.cpu)
        if resources.gpu:
            fitting = min(fitting, int(there["GPU"] / resources.gpu))
        most = max(1, self._comparison.settings.concurrent or fitting)
        return [Worker(number % int(there["GPU"]) if resources.gpu else None) for number in range(most)]

    def _finish(self, searched: Mapping[str, Row], table: pd.DataFrame, started: float) -> None:
        folder, label, count = self._place.folder, self._measure.upper(), self._comparison.repeats
        board = page_of(table, label, count)
        write(table, board, folder, "leaderboard")
        winner = winner_of(table)
        if winner is not None:
            write_json(self._place.best, searched[winner]["best"])
        self._place.publish()
        board.print(self._console)
        tracker = self._log(table, winner)
        page, searches = (self._place.found(folder / name) for name in ("leaderboard.html", "*/results.parquet"))
        lines = [f"leaderboard: {page}, .md, .parquet", f"searches: {searches}"]
        if not self._place.mirror:
            lines.append(f"a page about each search: {command('dgm-ray')} report {folder}")
        if winner is not None:
            row = table.iloc[0]
            lines = [
                f"best: {winner}, test {label} {row['test_mean']:.4g}, {row['gap']:+.2g} to validation"
                f": {self._place.found(self._place.best)}",
                repeat_line(self._place),
                f"use it: {command('dgm-ray')} impute {self._place.given} {self._table}",
                *lines,
            ]
        print_lines(self._console, self._place, tracker, lines, time.monotonic() - started)
        if winner is None:
            raise UnfinishedError(self._place.location, "no imputer got to the end; --resume tries again")

    @property
    def _table(self) -> str:
        """The arguments that complete the table: its file, where it is from one."""
        source = self._comparison.holdout.source
        if not isinstance(source, Csv | Parquet):
            return "TABLE.csv COMPLETED.csv"
        return shlex.join([str(source.path), f"COMPLETED{source.path.suffix}"])

    def _log(self, table: pd.DataFrame, winner: str | None) -> Tracker:
        """Log the leaderboard as a run of its own, and wait until all is sent."""
        name = self._place.folder.name
        tracker = self._tracker(self._place)
        tags = environment() | {"data_hash": self._hash, "study": self._place.location, "comparison": name}
        tags |= {"mechanism": self._comparison.mechanism, "best": winner or ""}
        params = {name: value for name, value in self._resolved.items() if name != "imputers"}
        tracker.open_study(name, params | {"imputers": list(self._studies)}, tags, resume=self._place.resume)
        figures = {}
        for row in table.to_dict("records"):
            for column in ("validation_mean", "validation_std", "test_mean", "test_std", "seconds"):
                if row[column] == row[column]:
                    figures[f"{row['imputer']}_{column}"] = row[column]
        tracker.log_study(figures, {"status": "completed", "best": winner or ""})
        tracker.log_text(self._comparison.path.read_text(encoding="utf-8"), self._comparison.path.name)
        files = ("leaderboard.parquet", "leaderboard.md", "leaderboard.html", "best.json", "study.json")
        for path in (self._place.folder / file for file in files):
            if path.exists():
                tracker.log_file(path)
        tracker.close("FINISHED")
        self._settle()
        tracker.problem = next((one.problem for one in self._trackers if one.problem), "")
        tracker.kept = sum(one.kept for one in self._trackers)
        return tracker

    def _tracker(self, place: Place) -> Tracker:
        settings = self._comparison.settings
        tracker = Tracker(place.folder, place.tracking_uri, settings.experiment, self._place.artifacts, settings.mlflow)
        self._trackers.append(tracker)
        return tracker

    def _settle(self) -> None:
        """Wait until all is sent; if it does not go on for one study, it does not for another."""
        wait = self._comparison.settings.mlflow.wait
        for tracker in self._trackers:
            if not tracker.kept:
                tracker.settle(wait)
            wait = 0.0 if tracker.kept else wait

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)


def _digest(*nodes: Any) -> str:
    return sha256(json.dumps(nodes, sort_keys=True).encode()).hexdigest()[:12]
