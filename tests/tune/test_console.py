"""What is printed while a study runs."""

from io import StringIO
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from dgm_ray.tune.console import ConsoleCallback
from dgm_ray.tune.outcomes import Outcome


def trial(number: int, score: float, *, finished: bool = True) -> Any:
    return SimpleNamespace(
        trial_id=str(number), experiment_tag=f"{number}_x", score=score, is_finished=lambda: finished
    )


def outcome(one: Any) -> Outcome:
    return Outcome(one.trial_id, int(one.trial_id), {}, "completed", "", one.score)


def test_a_star_marks_what_is_better_than_all_before_also_those_of_a_study_that_is_resumed() -> None:
    said = StringIO()
    callback = ConsoleCallback(Console(file=said, width=120), "val_x", 4, outcome)
    before = [trial(0, 0.5), trial(1, 0.7)]
    running = [trial(2, 0.6, finished=False), trial(3, 0.4, finished=False)]
    for iteration in range(2):
        callback.on_step_begin(iteration, [*before, *running])
    for one in running:
        callback.on_trial_end(one)
    assert [line[:5] for line in said.getvalue().splitlines()] == ["  002", "* 003"]
    assert callback._progress.tasks[0].completed == 4
