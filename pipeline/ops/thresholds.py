"""From thresholds as a user writes them to thresholds on stored codes.

A threshold pair is (low code, high code): an edge is usable iff its code > low code, and an edge that is usable and
has a code >= high code always joins. Code 0 also stands for "no such edge", so it is never usable.

* Absolute: shares of the decoded range 0..65535. Low code = the largest code that decodes to at most the low share,
  high code = the smallest code that decodes to at least the high share (256, which no code reaches, if none does).
* Percentile: shares of the histogram of all valid edges of the volume. Both codes are the inverted distribution
  function: the smallest code with at least that share of all edges at or below it. The comparison is exact: counts
  are integers and a share is the decimal number that its float prints as. The histogram has 256 bins; codes of 16 bits
  are counted by their upper byte, so that a threshold is the first code of a bin.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

FULL_SCALE = 65535


def absolute_codes(code_table: NDArray[np.integer], low: float, high: float) -> tuple[int, int]:
    """Low and high code for shares of the affinity range."""
    decoded = np.asarray(code_table, dtype=np.int64)
    low_code = int(np.searchsorted(decoded, round(low * FULL_SCALE), side="right")) - 1
    high_code = int(np.searchsorted(decoded, round(high * FULL_SCALE), side="left"))
    return max(low_code, 0), max(high_code, 1)


def percentile_codes(histogram: NDArray[np.integer], low: float, high: float, *, bits: int = 8) -> tuple[int, int]:
    """Low and high code, of 8 or 16 bits, for shares of all valid edges."""
    cumulative = np.cumsum(np.asarray(histogram, dtype=np.int64))
    total = int(cumulative[-1])
    low_code, high_code = (_inverted(cumulative, Fraction(repr(float(share))) * total) for share in (low, high))
    return low_code << (bits - 8), max(high_code << (bits - 8), 1)


def _inverted(cumulative: NDArray[np.int64], wanted: Fraction) -> int:
    at_least = -(-wanted.numerator // wanted.denominator)
    return int(np.searchsorted(cumulative, at_least, side="left"))
