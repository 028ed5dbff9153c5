"""Ray Tune around trials that do nothing: what ``overhead.py`` compares a study with. Started by it, on its own.

python benchmarks/bare_tune.py 32            # as lean as Ray can be asked to be
python benchmarks/bare_tune.py 32 --defaults # as Ray comes
"""

import os
import sys
import tempfile
import time

LEAN = {"RAY_AIR_NEW_OUTPUT": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}


def main(trials: int, defaults: bool) -> None:
    started = time.monotonic()
    if not defaults:
        os.environ.update(LEAN)
    import ray
    from ray import tune

    class Empty(tune.Trainable):  # type: ignore[misc]
        """Reports one number, once."""

        def setup(self, config: dict[str, float]) -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, float]) -> bool:
            self._x = new_config["x"]
            return True

        def step(self) -> dict[str, float | bool]:
            return {"loss": self._x, "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None: ...

    if not defaults:
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(Empty, {"cpu": 1}),
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=not defaults),
            run_config=tune.RunConfig(name="bare", storage_path=folder, verbose=1 if defaults else 0),
        )
        found = len(tuner.fit())
    assert found == trials
    print(f"took {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]), "--defaults" in sys.argv)
