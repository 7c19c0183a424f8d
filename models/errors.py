"""Errors of the models: one, because a file of weights is either what its spec says or it is not."""

from __future__ import annotations


class WeightsInvalid(ValueError):
    """A weights file or its spec is missing, damaged or states the impossible."""

    def __init__(self, what: str, *, where: str = "") -> None:
        super().__init__(f"{what} ({where})" if where else what)
        self.what = what
        self.where = where
