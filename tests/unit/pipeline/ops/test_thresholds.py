"""Thresholds on codes, against their definitions spelled out."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.ops.thresholds import absolute_codes, percentile_codes

LINEAR = np.arange(256) * 257


@pytest.mark.parametrize("seed", range(20))
def test_absolute_codes_match_their_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = np.sort(rng.choice(65536, 256, replace=False))
    table[0], table[-1] = 0, 65535
    low, high = np.sort(rng.random(2))
    low_code, high_code = absolute_codes(table, low, high)
    assert low_code == max(code for code in range(256) if table[code] <= round(low * 65535))
    assert high_code == min(code for code in range(256) if table[code] >= round(high * 65535))


def test_absolute_codes_at_the_ends() -> None:
    assert absolute_codes(LINEAR, 0.0, 1.0) == (0, 255)
    assert absolute_codes(LINEAR.astype(np.uint16), 0.5, 0.5) == (127, 128)
    assert absolute_codes(np.minimum(LINEAR, 60000), 0.1, 0.99) == (25, 256)


@pytest.mark.parametrize("seed", range(20))
def test_percentile_codes_are_the_inverted_distribution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(1, 256, int(rng.integers(1, 2000)))
    low, high = np.sort(rng.random(2))
    found = percentile_codes(np.bincount(codes, minlength=256), low, high)
    assert found == tuple(np.quantile(codes, (low, high), method="inverted_cdf"))


def test_percentile_codes_of_nothing_and_of_saturated_codes() -> None:
    assert percentile_codes(np.zeros(256, np.int64), 0.01, 0.99) == (0, 1)
    histogram = np.zeros(256, np.int64)
    histogram[[0, 7, 255]] = 2, 95, 3
    assert percentile_codes(histogram, 0.01, 0.99) == (0, 255)
    assert percentile_codes(histogram * 10**16, 0.02, 0.97) == (0, 7)


def test_bins_of_16_bit_codes_are_taken_whole() -> None:
    """Low is the last code of its bin, high the first one: with 256 codes that is the bin itself."""
    histogram = np.zeros(256, np.int64)
    histogram[[3, 100, 250]] = [10, 80, 10]
    assert percentile_codes(histogram, 0.1, 0.95) == (3, 250)
    assert percentile_codes(histogram, 0.1, 0.95, codes=65536) == (3 * 256 + 255, 250 * 256)
