"""The weights that a model starts from."""

from torch import nn


def initialize(module: nn.Module) -> None:
    """Draw, in place, the first weights of a module and of all modules in it, from torch's global generator.

    Linear: Xavier normal weights (Glorot and Bengio 2010), zero biases. BatchNorm1d: weights N(1, 0.02), zero biases.
    All others keep theirs.
    # Differs from the original, where only a bare Linear or BatchNorm1d was drawn, so nothing ever was (defect 2).
    """
    for one in module.modules():
        if isinstance(one, nn.Linear):
            nn.init.xavier_normal_(one.weight)
        elif isinstance(one, nn.BatchNorm1d):
            nn.init.normal_(one.weight, 1.0, 0.02)
        else:
            continue
        if one.bias is not None:
            nn.init.zeros_(one.bias)
