"""The figures of a study's page. Each function returns a drawn figure; ``figures.svg_of`` makes it a part of a page."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dgm_ray.space import Draw
from dgm_ray.tasks.progress import short
from dgm_ray.tune.plan import encoded
from dgm_ray.tune.report.figures import ACCENT, FAINT, LINE, ROW, figure
from dgm_ray.tune.report.importance import position

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONG = 34  # characters of a name beside an axis
POINTS, LINES = 150, 60  # of a curve, of the curves beside the best
BARS = 8  # categories; the others are one bar
POSITIVE, NEGATIVE = (0.16, 0.45, 0.85), (0.86, 0.42, 0.12)  # of matrices: seen in light and in dark


def number(value: float) -> str:
    """Return a number as an axis shows it."""
    return f"{value:.3g}"


def trials_in_order(numbers: Sequence[int], scores: Sequence[float], metric: str) -> "Figure":
    """Return the trials' scores by number, with the best so far. NaN: a trial that cannot win, a cross at the top."""
    from matplotlib.ticker import MaxNLocator

    with figure(2.9) as drawn:
        axes = _axes(drawn, 2.9)
        values = np.asarray(scores, dtype=float)
        top = _top(values)
        shown, none = np.minimum(values, top), np.isnan(values)
        beyond, places = values > top, np.asarray(numbers)
        inside = ~none & ~beyond
        axes.scatter(places[inside], shown[inside], s=18, color=FAINT, zorder=3, label="trial")
        if beyond.any():
            axes.scatter(places[beyond], shown[beyond], s=22, color=FAINT, marker="^", zorder=3, label="above")
        if none.any():
            at = np.full(none.sum(), top)
            axes.scatter(places[none], at, s=22, color=FAINT, marker="x", zorder=3, label="no score")
        best = np.fmin.accumulate(values)
        style: dict[str, Any] = {"color": ACCENT, "linewidth": 1.6, "drawstyle": "steps-post", "zorder": 2}
        axes.plot(places, best, label="best so far", **style)
        axes.set_xlabel("trial")
        axes.set_ylabel(metric)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return drawn


def _top(values: Any) -> float:
    """Return the highest score that is drawn to scale: one that diverged leaves no room for the others."""
    found = values[np.isfinite(values)]
    if not len(found):
        return 1.0
    low, middle = float(found.min()), float(np.median(found))
    return min(float(found.max()), middle + 5 * (middle - low)) if middle > low else float(found.max())


def parallel_coordinates(
    draws: Mapping[str, Draw], values: Sequence[Mapping[str, Any]], scores: Sequence[float], metric: str
) -> "Figure":
    """Return a line for each trial over its draws, one below the other, and its score; the better, the stronger."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    labels, row = list(draws), 0.42
    height = row * (len(labels) + 1) + 0.5
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    top = _top(np.asarray(scores, dtype=float))
    low = min(scores)
    with figure(height) as drawn:
        axes = drawn.add_axes((0.34, 0.3 / height, 0.62, 1 - 0.5 / height))
        axes.set(xlim=(-0.03, 1.03), ylim=(len(labels) + 0.45, -0.45))
        axes.spines[:].set_visible(False)
        axes.set_xticks([])
        axes.set_yticks(range(len(labels) + 1), [*(short(label, LONG) for label in labels), metric])
        axes.tick_params(length=0)
        for level in range(len(labels) + 1):
            axes.plot([0, 1], [level, level], color=LINE, linewidth=1, zorder=1)
        lines = []
        for index in order:
            at = [position(draws[label], values[index][label]) for label in labels]
            at.append((min(scores[index], top) - low) / (top - low) if top > low else 0.0)
            lines.append(np.column_stack([at, range(len(at))]))
        shares = (np.arange(len(order)) + 1) / len(order)  # 1: the best
        colours = [to_rgba(ACCENT, 0.08 + 0.6 * share**2) for share in shares[:-1]] + [to_rgba(ACCENT)]
        axes.add_collection(
            LineCollection(lines, colors=colours, linewidths=[*[1.0] * (len(order) - 1), 2.4], zorder=3)
        )
        for level, label in enumerate(labels):
            _ends(axes, draws[label], level)
        for share, value, side in ((0, low, "left"), (1, top, "right")):
            more = " and more" if share and max(scores) > top else ""
            axes.text(share, len(labels) + 0.36, f"{number(value)}{more}", ha=side, va="center", color=FAINT, size=7)
        return drawn


def _ends(axes: "Axes", draw: Draw, level: int) -> None:
    """Write below a line what stands at its ends, or all options if there is room."""
    options = draw.tried if len(draw.tried) <= 6 else draw.ends
    for option in options:
        at = position(draw, encoded(option))
        text = number(option) if isinstance(option, float) else short(str(option), 20)
        side = "left" if at == 0 else "right" if at == 1 else "center"
        axes.text(at, level + 0.3, text, ha=side, va="center", color=FAINT, size=7)


def bars(values: Mapping[str, float], label: str) -> "Figure":
    """Return a bar for each value, the first at the top."""
    height = ROW * len(values) + 0.7
    with figure(height) as drawn:
        axes = drawn.add_axes((0.34, 0.5 / height, 0.6, 1 - 0.6 / height))
        axes.barh(range(len(values)), list(values.values()), color=ACCENT, height=0.6)
        axes.set_yticks(range(len(values)), [short(name, LONG) for name in values])
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        return drawn


def learning_curves(history: pd.DataFrame, columns: Sequence[str], best: Sequence[int]) -> "Figure":
    """Return one axes for each column over epochs. best: numbers of trials, the best first, whose curves stand out.

    history: ``trial``, ``epoch`` and the columns, NaN where not measured.
    """
    from matplotlib.ticker import MaxNLocator

    across = 2
    down = math.ceil(len(columns) / across)
    height = 1.9 * down + 0.2
    others = [one for one in history["trial"].unique() if one not in best]
    kept = others[:: max(1, math.ceil(len(others) / LINES))]
    with figure(height) as drawn:
        all_axes = drawn.subplots(down, across, squeeze=False)
        for axes, column in zip(all_axes.flat, columns, strict=False):
            rows = history[["trial", "epoch", column]].dropna()
            _thin(axes, rows[rows["trial"].isin(kept)], column)
            for place, trial in reversed(list(enumerate(best))):
                own = rows[rows["trial"] == trial]
                if len(own):
                    _curve(axes, own, column, place)
            axes.set_title(column, size=9, loc="left")
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            _keep_in_sight(axes, history[column].to_numpy(dtype=float))
        for axes in all_axes.flat[len(columns) :]:
            axes.set_axis_off()
        for axes in all_axes[-1]:
            axes.set_xlabel("epoch")
        handles = next(iter(all_axes.flat)).get_legend_handles_labels()
        drawn.subplots_adjust(left=0.09, right=0.84, top=1 - 0.3 / height, bottom=0.5 / height, hspace=0.55, wspace=0.3)
        if handles[0]:
            drawn.legend(*(part[::-1] for part in handles), frameon=False, loc="upper right", bbox_to_anchor=(1, 1))
        return drawn


def _thin(axes: "Axes", rows: pd.DataFrame, column: str) -> None:
    """Draw the curves of all these trials as one line that is broken between them."""
    parts = [_fewer(one[["epoch", column]].to_numpy(float)) for _, one in rows.groupby("trial")]
    gap = np.full((1, 2), np.nan)
    points = np.concatenate([gap, *(part for one in parts for part in (one, gap))])
    axes.plot(points[:, 0], points[:, 1], color=FAINT, linewidth=0.6, alpha=0.5, zorder=2)
    single = [one[0] for one in parts if len(one) == 1]
    if single:
        across, up = np.array(single).T
        axes.scatter(across, up, color=FAINT, s=8, alpha=0.5, zorder=2)


def _curve(axes: "Axes", rows: pd.DataFrame, column: str, place: int) -> None:
    points = _fewer(rows[["epoch", column]].to_numpy(float))
    text = f"{rows['trial'].iloc[0]:03d}" + (", best" if place == 0 else "")
    style: dict[str, Any] = {"linestyle": ("-", "--", ":")[min(place, 2)], "linewidth": 1.8 if place == 0 else 1.2}
    style |= {"marker": "o", "markersize": 3} if len(points) == 1 else {}
    axes.plot(points[:, 0], points[:, 1], color=ACCENT, zorder=4, label=text, **style)


def _fewer(points: Any) -> Any:
    """Return at most POINTS of the points of a curve, (points, 2), the last among them."""
    return points[:: -max(1, math.ceil(len(points) / POINTS))][::-1]


def _keep_in_sight(axes: "Axes", values: Any) -> None:
    """Leave what lies far beyond the others outside the axes."""
    found = values[np.isfinite(values)]
    if len(found) < 8:
        return
    low, lower, upper, high = np.quantile(found, [0, 0.25, 0.75, 1])
    spread = (upper - lower) or 1.0
    bottom, top = max(low, lower - 10 * spread), min(high, upper + 10 * spread)
    axes.set_ylim(bottom - 0.05 * (top - bottom or 1), top + 0.05 * (top - bottom or 1))


def errors_by_variable(names: Sequence[str], errors: Sequence[float], means: Sequence[float], label: str) -> "Figure":
    """Return for each variable the winner's error, and that of means and modes, on one line."""
    height = ROW * len(names) + 1.0
    with figure(height) as drawn:
        axes = drawn.add_axes((0.34, 0.5 / height, 0.6, 1 - 0.85 / height))
        places = range(len(names))
        axes.hlines(places, errors, means, color=LINE, linewidth=2, zorder=1)
        axes.scatter(means, places, s=24, color=FAINT, marker="|", linewidths=2, zorder=2, label="means and modes")
        axes.scatter(errors, places, s=26, color=ACCENT, zorder=3, label="winner")
        axes.set_yticks(places, [short(name, LONG) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderpad=0)
        return drawn


def marginals(pairs: Mapping[str, tuple[pd.Series, pd.Series]], made: str) -> "Figure":
    """Return for each variable its true cells and those that were made, as histograms or bars of shares.

    made: what the second of each pair is called.
    """
    across = 4
    down = math.ceil(len(pairs) / across)
    height = 1.35 * down + 0.45
    with figure(height) as drawn:
        all_axes = drawn.subplots(down, across, squeeze=False)
        drawn.subplots_adjust(left=0.02, right=0.98, top=1 - 0.55 / height, bottom=0.25 / height, hspace=0.75)
        for axes, (name, (true, other)) in zip(all_axes.flat, pairs.items(), strict=False):
            axes.set_title(short(name, 24), size=8, loc="left", pad=3)
            axes.spines["left"].set_visible(False)
            axes.set_yticks([])
            axes.tick_params(labelsize=7, length=2)
            (_histogram if is_scale(true) else _shares)(axes, true.dropna(), other.dropna(), made)
        for axes in all_axes.flat[len(pairs) :]:
            axes.set_axis_off()
        handles = next(iter(all_axes.flat)).get_legend_handles_labels()
        drawn.legend(*handles, frameon=False, ncols=2, loc="upper right", bbox_to_anchor=(0.99, 1), borderpad=0.2)
        return drawn


def is_scale(cells: pd.Series) -> bool:
    """Tell whether cells are numbers or points in time."""
    return bool(pd.api.types.is_numeric_dtype(cells.dtype) or pd.api.types.is_datetime64_any_dtype(cells.dtype))


def as_numbers(cells: pd.Series) -> pd.Series:
    """Return numbers as they are, points in time as days since 1970."""
    if pd.api.types.is_datetime64_any_dtype(cells.dtype):
        points = cells.dt.tz_localize(None) if cells.dt.tz is not None else cells
        return (points - pd.Timestamp(0)) / pd.Timedelta(days=1)
    return cells.astype(np.float64)


def _histogram(axes: "Axes", true: pd.Series, made: pd.Series, label: str) -> None:
    one, other = as_numbers(true).to_numpy(), as_numbers(made).to_numpy()
    low, high = float(one.min()), float(one.max())
    span = (high - low) or 1.0
    bins = int(np.clip(2 * np.sqrt(min(len(one), len(other))), 6, 24))
    edges = np.linspace(low - 0.1 * span, high + 0.1 * span, bins + 1)  # what was made beyond stands at the ends
    shares = [np.histogram(np.clip(part, edges[0], edges[-1]), edges)[0] / max(len(part), 1) for part in (one, other)]
    axes.stairs(shares[0], edges, fill=True, color=FAINT, alpha=0.45, label="true")
    axes.stairs(shares[1], edges, color=ACCENT, linewidth=1.3, label=label)
    ends = true.min(), true.max()
    texts = [f"{end:%Y-%m-%d}" if isinstance(end, pd.Timestamp) else number(float(end)) for end in ends]
    axes.set_xticks([low, high] if high > low else [low], texts if high > low else texts[:1])
    axes.set_ylim(bottom=0)


def shares_of(true: pd.Series, made: pd.Series) -> pd.DataFrame:
    """Return the share of each category among known cells: columns ``true`` and ``made``, by category."""
    parts = [part.value_counts(normalize=True) for part in (true, made)]
    return pd.concat(parts, axis=1, keys=["true", "made"]).fillna(0.0)


def _shares(axes: "Axes", true: pd.Series, made: pd.Series, label: str) -> None:
    counts = shares_of(true, made).sort_values("true", ascending=False, kind="stable")
    if len(counts) > BARS:
        counts = pd.concat([counts[: BARS - 1], counts[BARS - 1 :].sum().to_frame("others").T])
    places, shares = np.arange(len(counts)), counts.to_numpy()
    axes.bar(places, shares[:, 0], width=0.8, color=FAINT, alpha=0.45, label="true")
    axes.bar(places, shares[:, 1], width=0.8, fill=False, edgecolor=ACCENT, linewidth=1.3, label=label)
    room = max(3, 20 // len(counts))
    axes.set_xticks(
        places, [text if len(text := str(name)) <= room else f"{text[: room - 1]}…" for name in counts.index]
    )


def matrices(true: pd.DataFrame, made: pd.DataFrame, label: str) -> "Figure":
    """Return three square tables side by side: of true rows, of those that were made, and the second less the first."""
    size = 2.0
    names = [short(str(name), 22) for name in true]
    room = 0.2 + 0.06 * max(map(len, names))  # inches, for names beside and below
    height, width = size + room + 0.35, room + 3 * (size + 0.2)
    with figure(height, width) as drawn:
        for place, (title, values) in enumerate([("true", true), (label, made), ("difference", made - true)]):
            left = room + place * (size + 0.2)
            axes = drawn.add_axes((left / width, room / height, size / width, size / height))
            axes.imshow(_coloured(values.to_numpy(float)), interpolation="none", aspect="equal")
            axes.set_title(title, size=9, loc="left")
            axes.set_xticks(range(len(names)), names, rotation=90, size=6.5)
            axes.set_yticks(range(len(names)), names if place == 0 else [], size=6.5)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(True)
        return drawn


def _coloured(values: Any) -> Any:
    """Return (rows, columns, 4): how strong is how much covers the page; nothing where there is no value."""
    colours = np.where(values[..., np.newaxis] < 0, NEGATIVE, POSITIVE)
    return np.concatenate([colours, np.nan_to_num(np.abs(values)).clip(0, 1)[..., np.newaxis]], axis=-1)


def _axes(drawn: "Figure", height: float) -> "Axes":
    axes = drawn.add_axes((0.1, 0.5 / height, 0.74, 1 - 0.65 / height))
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes
