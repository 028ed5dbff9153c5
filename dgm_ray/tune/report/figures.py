"""Figures as inline SVG, drawn without a display, whose colours are those of the page around them: light or dark."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from dgm_ray.evaluation.ranking import front

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What matplotlib draws in these is drawn in the page's colours; ``dgm_ray.tune.report.page`` says which they are.
TEXT, ACCENT, FAINT, LINE = "#010203", "#010204", "#010205", "#010206"
_COLOURS = {TEXT: "currentColor", ACCENT: "var(--accent)", FAINT: "var(--faint)", LINE: "var(--line)"}
WIDTH, ROW = 7.2, 0.23  # inches: of a figure, of a line of text
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "dgm_ray",  # the same figure is the same text
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": TEXT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
}


@contextmanager
def figure(height: float, width: float = WIDTH) -> Iterator["Figure"]:
    """Yield an empty figure, in inches, in the one style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height))


def svg_of(drawn: "Figure", description: str) -> str:
    """Return a figure as an SVG element for a page. description: for who cannot see it."""
    from html import escape

    import matplotlib as mpl

    written = io.StringIO()
    with mpl.rc_context(_STYLE):
        drawn.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    text = text[text.index("<svg") :].strip()
    for colour, own in _COLOURS.items():
        text = text.replace(colour, own)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)


def quality_against_seconds(
    names: Sequence[str], values: Sequence[float], seconds: Sequence[float], label: str, *, larger: bool = False
) -> str:
    """Return a figure of values over seconds, with the front that nothing is better than in both.

    label: of the values. larger: better. Methods without a value or seconds are left out.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    kept = [index for index in range(len(names)) if math.isfinite(values[index]) and seconds[index] > 0]
    names, values = [names[index] for index in kept], [values[index] for index in kept]
    seconds = [seconds[index] for index in kept]
    best = front([-value for value in values] if larger else values, seconds)
    height = max(3.0, ROW * len(names) + 1.0)
    with figure(height) as drawn:
        axes = drawn.add_axes((0.09, 0.55 / height, 0.63, 1 - 0.75 / height))
        axes.set_xscale("log")
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        others = [index for index in range(len(names)) if index not in best]
        axes.scatter([seconds[i] for i in others], [values[i] for i in others], s=26, color=FAINT, zorder=3)
        steps: dict[str, Any] = {"color": ACCENT, "linewidth": 1.2, "zorder": 2, "drawstyle": "steps-post"}
        axes.plot([seconds[i] for i in best], [values[i] for i in best], **steps)
        axes.scatter([seconds[i] for i in best], [values[i] for i in best], s=34, color=ACCENT, zorder=4)
        low, high = min(seconds), max(seconds)
        axes.set_xlim(low / 1.6, high * 1.6)
        spread = (max(values) - min(values)) or abs(values[0]) or 1.0
        axes.set_ylim(min(values) - 0.06 * spread, max(values) + 0.06 * spread)
        if larger:
            axes.margins(y=0.06)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 20 * low else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("seconds of a training")
        axes.set_ylabel(label)
        _name_at_the_right(axes, names, values, seconds, best, height)
        described = f"{label} against seconds; on the front: {', '.join(names[index] for index in best)}"
        return svg_of(drawn, described)


def _name_at_the_right(
    axes: Any,
    names: Sequence[str],
    values: Sequence[float],
    seconds: Sequence[float],
    best: Sequence[int],
    height: float,
) -> None:
    """Write each point's name beside the axes, at its height where there is room, with a line to the point."""
    order = sorted(range(len(names)), key=lambda index: values[index])
    inches = axes.get_position().height * height
    low, high = axes.get_ylim()
    wanted = [(values[index] - low) / (high - low) for index in order]
    for index, position in zip(order, spread_out(wanted, ROW / inches), strict=True):
        on_front = index in best
        axes.annotate(
            names[index],
            xy=(seconds[index], values[index]),
            xytext=(1.04, position),
            textcoords="axes fraction",
            va="center",
            color=ACCENT if on_front else TEXT,
            weight="bold" if on_front else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": LINE,
                "linewidth": 0.7,
                "shrinkA": 2,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )


def spread_out(wanted: Sequence[float], gap: float) -> list[float]:
    """Return positions in [0, 1] near the wanted ones, which are sorted, at least ``gap`` apart if there is room."""
    gap = min(gap, 1 / max(len(wanted) - 1, 1))
    found: list[float] = []
    for one in wanted:
        found.append(max(one, found[-1] + gap) if found else one)
    limit = 1.0
    for index in reversed(range(len(found))):
        found[index] = limit = min(found[index], limit)
        limit -= gap
    return found


def critical_difference_diagram(
    names: Sequence[str], mean_ranks: Sequence[float], difference: float, groups: Sequence[Sequence[int]]
) -> str:
    """Return Demsar's diagram: mean ranks on a line, best at the left, and bars over those that may be alike.

    difference: the critical one. groups: indices of methods that are not told apart.
    """
    count = len(names)
    half = math.ceil(count / 2)
    order = list(np.argsort(mean_ranks, kind="stable"))
    scale, bars, rows = 0.75, 0.14 * len(groups), ROW * half
    height = scale + bars + rows + 0.35
    left, right = 0.28, 0.72  # of the width: names stand outside

    def across(rank: float) -> float:
        return left + (right - left) * (rank - 1) / (count - 1)

    with figure(height) as drawn:
        axes = drawn.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 1), ylim=(height, 0))
        axes.axis("off")
        axes.plot([left, right], [scale, scale], color=TEXT, linewidth=1)
        for rank in range(1, count + 1):
            axes.plot([across(rank)] * 2, [scale - 0.06, scale], color=TEXT, linewidth=1)
            axes.text(across(rank), scale - 0.1, str(rank), ha="center", va="bottom")
        shown = min(difference, count - 1)
        ends = [across(1), across(1 + shown)]
        axes.plot(ends, [0.32, 0.32], color=ACCENT, linewidth=2, solid_capstyle="butt")
        more = "" if difference <= count - 1 else ", more than all ranks"
        axes.text(ends[0], 0.26, f"critical difference {difference:.2f}{more}", va="bottom", color=ACCENT)
        for level, group in enumerate(groups):
            place = scale + 0.12 + 0.14 * level
            ends = [
                across(min(mean_ranks[i] for i in group)) - 0.006,
                across(max(mean_ranks[i] for i in group)) + 0.006,
            ]
            axes.plot(ends, [place, place], color=ACCENT, linewidth=3, solid_capstyle="round")
        for position, index in enumerate(order):
            first = position < half
            row = position if first else count - 1 - position
            place = scale + bars + 0.22 + ROW * row
            at, end = across(mean_ranks[index]), left - 0.02 if first else right + 0.02
            axes.plot([at, at, end], [scale, place, place], color=FAINT, linewidth=0.8)
            text = f"{names[index]}  {mean_ranks[index]:.2f}" if first else f"{mean_ranks[index]:.2f}  {names[index]}"
            axes.text(end + (-0.008 if first else 0.008), place, text, ha="right" if first else "left", va="center")
        ranked = ", ".join(f"{names[index]} {mean_ranks[index]:.2f}" for index in order)
        return svg_of(drawn, f"mean ranks: {ranked}; critical difference {difference:.2f}")
