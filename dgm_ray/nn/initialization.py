"""The weights that a model starts from."""

from typing import Literal

from torch import nn

Initialization = Literal["xavier", "he"]


def initialize(module: nn.Module, initialization: Initialization = "xavier") -> None:
    """Draw, in place, the first weights of a module and of all modules in it, from torch's global generator.

    Linear: normal weights, of Xavier's deviation (Glorot and Bengio 2010) or He's (2015, arXiv:1502.01852, equation
    10), zero biases. BatchNorm1d: weights N(1, 0.02), zero biases. All others keep theirs.
    # Differs from the original, where only a bare Linear or BatchNorm1d was drawn, so nothing ever was (defect 2).
    """
    draw = nn.init.xavier_normal_ if initialization == "xavier" else nn.init.kaiming_normal_
    for one in module.modules():
        if isinstance(one, nn.Linear):
            draw(one.weight)
        elif isinstance(one, nn.BatchNorm1d):
            nn.init.normal_(one.weight, 1.0, 0.02)
        else:
            continue
        if one.bias is not None:
            nn.init.zeros_(one.bias)
