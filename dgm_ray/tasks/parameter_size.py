"""``ComputeParameterSize``: how many numbers an architecture learns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from dgm_ray.data import Metadata
from dgm_ray.models import build_components
from dgm_ray.registry import TASKS, Node
from dgm_ray.space import read_file
from dgm_ray.tasks.configuration import LOG
from dgm_ray.training import modules_of


@dataclass(frozen=True)
class ComputeParameterSize:
    """Count the trained numbers of an architecture's components, and of all together.

    name: what the line that is printed and logged begins with.
    metadata: the metadata.json of the table.
    architecture: the path of its file, or the architecture itself. Nothing is computed: it is built without memory.
    """

    name: str
    metadata: Path
    architecture: Node

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Print and log the count; return it for each component and as ``parameters``."""
        path = self.architecture if isinstance(self.architecture, str) else "architecture"
        node = read_file(path) if isinstance(self.architecture, str) else self.architecture
        with torch.device("meta"):
            metadata = Metadata.read(self.metadata)
            built = build_components(node, {"metadata": metadata}, None, path)
        sizes = {
            name: sum(one.numel() for one in module.parameters() if one.requires_grad)
            for name, module in modules_of(built).items()
        }
        total = sum(sizes.values())
        console.print(f"{self.name}: {total}", highlight=False)
        LOG.info("%s: %d", self.name, total)
        return {**{name: size for name, size in sizes.items() if size}, "parameters": total}


TASKS.register(ComputeParameterSize)
