"""Numbers in units of their own spread, for networks whose weights do not suit small or skewed ones."""

import torch
from torch import Tensor, nn

from dgm_ray.data.metadata import Metadata


class Standardized(nn.Module):
    """A network of (features, missing_mask) that sees and makes standardised numbers: (rows, num_features).

    Numerical columns lose the mean of the cells that were observed in training so far, and are divided by their
    deviation; what the network returns is brought back, and in evaluation stays between the smallest and the largest
    of these cells. Missing cells are 0 for it. Other columns stay as they are.

    The statistics are exact over all batches seen (Chan, Golub and LeVeque 1979), and are kept with the weights.
    """

    numerical: Tensor
    count: Tensor
    mean: Tensor
    squares: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, metadata: Metadata, network: nn.Module, /) -> None:
        super().__init__()
        self.network = network
        numerical = torch.tensor(metadata.numerical_columns, dtype=torch.float32)
        self.register_buffer("numerical", numerical, persistent=False)
        zeros, infinite = torch.zeros(metadata.num_features), torch.full((metadata.num_features,), torch.inf)
        starts = {"count": zeros, "mean": zeros, "squares": zeros, "low": infinite, "high": -infinite}
        for name, start in starts.items():  # of observed cells, (num_features,)
            self.register_buffer(name, start.clone())

    def forward(self, features: Tensor, missing_mask: Tensor) -> Tensor:
        if self.training:
            self._observe(features, missing_mask)
        variance = self.squares / self.count.clamp_min(1)  # (num_features,)
        deviation = torch.where((self.numerical != 0) & (variance > 1e-12), variance, 1.0).sqrt()
        mean = self.numerical * self.mean
        standard = torch.where(missing_mask != 0, 0.0, (features - mean) / deviation)
        outputs: Tensor = mean + deviation * self.network(standard, missing_mask)
        if self.training:
            return outputs
        bounded = (self.numerical != 0) & (self.count > 0)
        return torch.where(bounded, outputs.clamp(self.low, self.high), outputs)

    @torch.no_grad()
    def _observe(self, features: Tensor, missing_mask: Tensor) -> None:
        observed = (missing_mask == 0).to(features.dtype)
        count = observed.sum(dim=0)  # (num_features,), as all below
        known = torch.where(missing_mask == 0, features, 0.0)  # (rows, num_features)
        mean = known.sum(dim=0) / count.clamp_min(1)
        squares = ((known - mean).square() * observed).sum(dim=0)
        total = (self.count + count).clamp_min(1)
        change = mean - self.mean
        self.squares += squares + change.square() * self.count * count / total
        self.mean += change * count / total
        self.count += count
        self.low.copy_(torch.minimum(self.low, torch.where(missing_mask == 0, features, torch.inf).amin(dim=0)))
        self.high.copy_(torch.maximum(self.high, torch.where(missing_mask == 0, features, -torch.inf).amax(dim=0)))
