"""``python -m dgm_ray.tune SPACE.yaml``."""

import typer

from dgm_ray.tune.command import tune

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(tune)

if __name__ == "__main__":
    app(prog_name="python -m dgm_ray.tune")
