"""What is printed while a study runs: lines, and one table in a terminal."""

from collections.abc import Callable
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from dgm_ray.tune.console import ConsoleCallback
from dgm_ray.tune.live import Now, Row, clock_time
from dgm_ray.tune.outcomes import Outcome

NAN = float("nan")


def trial(number: int, score: float, *, finished: bool = True) -> Any:
    return SimpleNamespace(
        trial_id=str(number),
        experiment_tag=f"{number}_x",
        score=score,
        is_finished=lambda: finished,
        config={"lr": 0.1},
    )


def outcome(one: Any) -> Outcome:
    return Outcome(one.trial_id, int(one.trial_id), {}, "completed", "", one.score)


def callback(console: Console, **more: Any) -> ConsoleCallback:
    return ConsoleCallback(console, "val_x", 4, outcome, lambda one: 20, **more)


def result(epoch: int, now: float, best: float) -> dict[str, float]:
    return {"epoch": epoch, "val_x": now, "best_val_x": best}


def test_a_star_marks_what_is_better_than_all_before_also_those_of_a_study_that_is_resumed() -> None:
    said = StringIO()
    shown = callback(Console(file=said, width=120))
    before = [trial(0, 0.5), trial(1, 0.7)]
    running = [trial(2, 0.6, finished=False), trial(3, 0.4, finished=False)]
    for iteration in range(2):
        shown.on_step_begin(iteration, [*before, *running])
    for one in running:
        shown.on_trial_end(one)
    assert [line[:5] for line in said.getvalue().splitlines()] == ["  002", "* 003"]
    assert shown.now.ended == 4


def test_a_log_gets_a_line_when_nothing_was_said_and_only_then() -> None:
    said = StringIO()
    shown = callback(Console(file=said, width=120), silence=-1.0, lines=False, name="gain")
    running = trial(2, 0.6, finished=False)
    shown.on_trial_start(1, [running], running)
    shown.on_trial_result(2, [running], running, result(5, 0.3, 0.25))
    assert said.getvalue() == "", "a result alone says nothing"
    shown.on_step_begin(3, [running])
    line = said.getvalue()
    assert line.startswith("gain, 0 of 4 trials, ")
    assert "running: 002 at epoch 5 of 20" in line
    patient = callback(Console(file=(unsaid := StringIO()), width=120))
    patient.on_step_begin(3, [running])
    assert unsaid.getvalue() == ""


def test_a_terminal_has_the_table_instead_and_a_quiet_one_nothing() -> None:
    running = trial(2, 0.6, finished=False)
    for quiet, seen in ((False, True), (True, False)):
        said = StringIO()
        shown = callback(Console(file=said, width=80, force_terminal=True, quiet=quiet), silence=-1.0)
        shown.start()
        shown.on_trial_start(1, [running], running)
        shown.on_step_begin(2, [running])
        shown.on_trial_end(running)
        shown.stop()
        assert ("running:" in said.getvalue()) is False
        assert ("of 4 trials" in said.getvalue()) is seen
        assert ("* 002  val_x 0.6" in said.getvalue()) is seen, "ended trials' lines stay above"


def test_a_measure_stays_until_the_next_and_values_may_change() -> None:
    shown = callback(Console(file=StringIO()))
    one = trial(7, 0.0, finished=False)
    shown.on_trial_result(1, [one], one, result(5, 0.3, 0.3))
    one.config = {"lr": 0.2}
    shown.on_trial_result(2, [one], one, result(6, NAN, 0.3))
    row = shown.now.running["7"]
    assert (row.epoch, row.of, row.now, row.best, row.values) == (6, 20, 0.3, 0.3, {"lr": 0.2})
    shown.on_trial_end(one)
    assert shown.now.running == {}


class Clock:
    """Seconds that a test sets."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def now(clock: Callable[[], float], running: int = 2, name: str = "") -> Now:
    """Two of 24 trials have ended, and some run."""
    made = Now("val_x", 24, name, clock)
    values = {"autoencoder_optimizer.lr": 0.00123456, "code_size": 12, "encoder.hidden_layers.sizes": "[64, 64]"}
    for number in range(2):
        made.end(Outcome(str(number), number, values, "completed", "", 0.3 - number / 10, best_epoch=9, epochs=10))
    for number in range(2, 2 + running):
        made.running[str(number)] = Row(number, 100, values, 50, 0.25, 0.2)
    return made


def rendered(made: Now, width: int, height: int = 40) -> list[str]:
    console = Console(record=True, width=width, height=height, file=StringIO(), force_terminal=True)
    console.print(made)
    return console.export_text().splitlines()


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (40, []),
        (60, ["…_optimizer.lr", "code_size"]),
        (100, ["…_optimizer.lr", "code_size", "…_layers.sizes"]),
    ],
)
def test_the_table_fits_its_terminal(clock: Clock, width: int, heads: list[str]) -> None:
    """Each drawn value has a column, as many as there is room for."""
    seen = ["0.00123", "12", "[64,", "64]"][: len(heads) + (len(heads) == 3)]
    made = now(clock)
    clock.seconds = 60.0
    lines = rendered(made, width)
    assert all(len(line) <= width for line in lines)
    header = "2 of 24 trials, best 0.2 (001), 1:00, about 7:00 left"
    assert lines[0].strip() == (header if width > len(header) else f"{header[: width - 1]}…")
    assert lines[1].split()[4:] == heads
    running = [[number, "50/100", "0.25", "0.2", *seen] for number in ("002", "003")]
    best = [["*", "001", "9/10", "0.2", *seen], ["000", "9/10", "0.3", *seen]]
    assert [line.split() for line in lines[2:]] == [*running, *best]


def test_rows_fit_the_height(clock: Clock) -> None:
    lines = rendered(now(clock, running=50), 100, height=20)
    assert len(lines) <= 20
    assert any("+38 " in line for line in lines)


def test_time_left_counts_what_was_done_here(clock: Clock) -> None:
    """Half of what was left when the study was resumed took 90 seconds."""
    made = Now("val_x", 5, "gain", clock)
    made.end(Outcome("0", 0, {}, "completed", "", 0.5), before=True)
    assert made.header == "gain, 1 of 5 trials, best 0.5 (000), 0:00"
    made.end(Outcome("1", 1, {}, "failed", "", NAN))
    for number in (2, 3):
        made.running[str(number)] = Row(number, 10, {}, 5)
    clock.seconds = 90.0
    assert made.header == "gain, 2 of 5 trials, best 0.5 (000), 1:30, about 1:30 left"
    assert made.line.endswith("; running: 002 at epoch 5 of 10, 003 at epoch 5 of 10")


def test_a_trial_without_a_measure_has_no_figure(clock: Clock) -> None:
    made = Now("val_x", 1, clock=clock)
    made.running["0"] = Row(0, 10, {})
    assert rendered(made, 60)[2].split() == ["000", "0/10"]


def test_times_are_for_people() -> None:
    assert [clock_time(seconds) for seconds in (0, 59.6, 3599, 3725)] == ["0:00", "1:00", "59:59", "1:02:05"]
