"""Run a study of two trials of every search space, and of one on a file: ``python every_model.py FOLDER ADDRESS``.

All in one process that has joined the Ray at ADDRESS. The studies are written to FOLDER/mlflow.db, and are called as
their space, or as their imputer. "seeds" has three seeds and reads FOLDER/table.csv, which it names without its folder.
"""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from dgm_ray.tune.command import _quiet

SPACES = Path(__file__).parents[2] / "search_spaces"
SHORT = ("tune.scheduler={factory: FIFO}", "tune.samples=2", "tune.keep=1")
SHORT += ("tune.concurrent=1",)  # one process a study to start
FEW = ("trial.arguments.epochs=2", "trial.arguments.evaluate_every=1")


def names() -> list[str]:
    """Return the names of the studies but for "seeds": every space, and every imputer that has none of its own."""
    from dgm_ray.tasks.imputers import imputer_names
    from dgm_ray.tune.comparison import is_comparison

    spaces = [path.stem for path in sorted(SPACES.glob("*.yaml")) if not is_comparison(path)]
    return spaces + [name for name in imputer_names() if name not in spaces]


def main() -> None:
    _quiet()
    from dgm_ray.data.user_files import source_node
    from dgm_ray.tune import run
    from dgm_ray.tune.cluster import start_ray
    from dgm_ray.tune.comparison import Comparison
    from dgm_ray.tune.place import Place
    from dgm_ray.tune.settings import Resources
    from dgm_ray.tune.study import Study

    folder, address = Path(sys.argv[1]), sys.argv[2]
    os.chdir(folder)
    run.write_page = run.write_models = lambda *_: None  # which take long, and are not what is tested
    start_ray(Resources(), address)
    comparison = Comparison.read(SPACES / "imputers.yaml", SHORT)
    of_imputers = comparison.studies(comparison.prepare())

    def made() -> Iterator[tuple[str, Study]]:
        for name in names():
            if (path := SPACES / f"{name}.yaml").exists():
                yield name, Study.read(path, [*SHORT, *FEW])
            else:
                settings = replace(of_imputers[name].settings, samples=min(2, of_imputers[name].trials))
                arguments = of_imputers[name].node["trial"]["arguments"] | {"epochs": 2}
                node = {"trial": {**of_imputers[name].node["trial"], "arguments": arguments}}
                yield name, Study.of(SPACES / "imputers.yaml", node, settings)
        assignments = [*SHORT, *FEW, "tune.seeds=3", "trial.arguments.batch_size=16"]
        yield "seeds", Study.read(SPACES / "vae.yaml", assignments, source=source_node(Path("table.csv")))

    for name, study in made():
        place = Place(folder / "results" / name, f"sqlite:///{folder / 'mlflow.db'}")
        run.run_study(study, study.prepare(), place, Console(width=120), time.monotonic())


if __name__ == "__main__":
    main()
