"""Whether what runs computes for several models at once, so that it must not ask what a tensor holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TOGETHER: ContextVar[bool] = ContextVar("together", default=False)


def together() -> bool:
    """Tell whether tensors stand for those of several models: there is no ``if`` and no gradient but torch.func's."""
    return _TOGETHER.get()


@contextmanager
def computing_together() -> Iterator[None]:
    """Inside, ``together`` is true."""
    token = _TOGETHER.set(True)
    try:
        yield
    finally:
        _TOGETHER.reset(token)
