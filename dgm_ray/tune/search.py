"""A plan's draws as Ray Tune's distributions."""

from typing import Any

from ray import tune

from dgm_ray.space import LISTED, Draw
from dgm_ray.tune.plan import Plan, encoded


def param_space(plan: Plan) -> dict[str, Any]:
    """Return Tune's search space: one flat entry per draw, under its short name."""
    return {label: domain(draw) for label, (_, draw) in plan.draws.items()}


def domain(draw: Draw) -> Any:
    """Return Tune's distribution of a draw."""
    name, arguments = draw.distribution, draw.arguments
    if name in LISTED:
        options = [encoded(option) for option in arguments]
        return tune.choice(options) if name == "choice" else tune.grid_search(options)
    if name == "normal":
        return tune.randn(*arguments)
    if name in ("randint", "lograndint"):  # Ray's upper end is open, ours is closed
        low, high = arguments
        return getattr(tune, name)(low, high + 1)
    return getattr(tune, name)(*arguments)
