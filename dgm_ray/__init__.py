"""Deep generative models and imputers for tables, each one a Ray Tune trial over a declarative search space."""

__version__ = "0.1.0"
