"""The console script ``dgm-ray``."""

import json

import typer

from dgm_ray.errors import one_line_errors
from dgm_ray.tasks.runner import run
from dgm_ray.tune.command import tune

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, tune and judge deep generative models and imputers for tables.",
)
app.command()(tune)
app.command()(run)


@app.command()
def schema() -> None:
    """Print the JSON Schema of search spaces and configurations, for an editor's YAML and JSON support."""
    with one_line_errors():
        import dgm_ray.tune.parallel  # noqa: F401 (registers MultiProcessTaskRunner)
        from dgm_ray.schema import schema as make_schema
        from dgm_ray.tasks.configuration import load_tasks
        from dgm_ray.tune.settings import Settings

        load_tasks()
        print(json.dumps(make_schema(Settings), indent=2))
