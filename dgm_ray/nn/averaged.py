"""A network whose weights are averaged over the steps of its training."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dgm_ray.registry import Fraction, register


@register
class Averaged(nn.Module):
    """A network that trains as it is, and in evaluation has the moving average of its weights.

    It takes the place of any network, as a component or a part of one. What else it holds, such as running
    statistics, is not averaged. Source: Polyak and Juditsky 1992, doi 10.1137/0330046; with the exponential window and
    the short one of the first steps that are common since Tarvainen and Valpola 2017, arXiv:1703.01780.

    network: what is averaged. decay: the share of the average that a step keeps, in [0, 1); 0.999 averages over about
    a thousand steps. The average is brought up to date at the next call in training: it is one step behind.
    """

    decay: Tensor
    steps: Tensor

    def __init__(self, network: nn.Module, decay: Fraction = 0.999) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("decay", torch.tensor(float(decay)), persistent=False)
        self.register_buffer("steps", torch.zeros(()))
        for index, parameter in enumerate(network.parameters()):
            self.register_buffer(f"average_{index}", parameter.detach().clone())

    def forward(self, *inputs: Tensor) -> Any:
        if self.training:
            self._average()
            return self.network(*inputs)
        # Before the first step there is no average yet: blended, as a branch would depend on data.
        untrained = self.steps == 0
        weights = {
            name: torch.where(untrained, parameter.detach(), average)
            for (name, parameter), average in zip(self.network.named_parameters(), self._averages(), strict=True)
        }
        return functional_call(self.network, weights, inputs)

    @torch.no_grad()
    def _average(self) -> None:
        share = 1 - torch.minimum(self.decay, self.steps / (self.steps + 9))  # 1 in the first step: nothing is kept
        for average, parameter in zip(self._averages(), self.network.parameters(), strict=True):
            average += share * (parameter - average)  # lerp_ has no rule for several models at once (torch 2.13)
        self.steps += 1

    def _averages(self) -> list[Tensor]:
        return [self.get_buffer(f"average_{index}") for index, _ in enumerate(self.network.parameters())]
