import numpy as np
import pytest

from models.spec import NEAREST, smooth_code_table
from pipeline.ops.affinity_score import score

TABLE = smooth_code_table()


def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (4, 5, 6)).repeat(2, 1).repeat(2, 2)


def true_codes(truth: np.ndarray) -> np.ndarray:
    codes = np.zeros((3, *truth.shape), np.uint8)
    for c, offset in enumerate(NEAREST):
        axis = offset.index(-1)
        a, b = np.delete(truth, 0, axis), np.delete(truth, -1, axis)
        inside = tuple(slice(1, None) if d == axis else slice(None) for d in range(3))
        codes[c][inside] = 255 * ((a == b) & (a > 0))
    return codes


def brute_auc(codes: np.ndarray, truth: np.ndarray, offset) -> float:
    true, false = [], []
    for i in np.ndindex(*truth.shape):
        j = tuple(a + o for a, o in zip(i, offset, strict=True))
        if min(j) >= 0:
            (true if truth[i] == truth[j] > 0 else false).append(int(codes[i]))
    a, b = np.array(true)[:, None], np.array(false)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def test_the_truth_scores_full():
    found = score(true_codes(labels()), labels(), NEAREST, TABLE)
    assert found["auc"] == 1
    assert found["loss"] < 1e-4


def test_auc_matches_brute_force_and_chance_is_one_half():
    truth = labels()
    codes = np.random.default_rng(1).integers(0, 256, (3, *truth.shape), dtype=np.uint8)
    found = score(codes, truth, NEAREST, TABLE)
    for channel, name in enumerate(("auc_z", "auc_y", "auc_x")):
        assert found[name] == pytest.approx(brute_auc(codes[channel], truth, NEAREST[channel]))
    assert found["auc"] == pytest.approx(0.5, abs=0.1)


def test_codes_that_say_nothing_have_the_loss_of_a_coin():
    truth = np.zeros((2, 4, 4), np.int64)
    truth[:, :, :3] = 1
    codes = np.full((3, 2, 4, 4), 128, np.uint8)
    losses = score(codes, truth, NEAREST, TABLE)["loss"]
    # z: 12 of 16 edges are true, y: 18 of 24, x: 16 of 24.
    shares = [2 * 0.75 * 0.25, 2 * 0.75 * 0.25, 2 * (2 / 3) * (1 / 3)]
    assert losses == pytest.approx(np.log(2) * np.mean(shares), rel=1e-3)
