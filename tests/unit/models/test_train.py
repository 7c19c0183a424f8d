from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.augmentation.plain import Plain
from models.errors import WeightsInvalid
from models.rsunet import RSUNet
from models.spec import NEAREST
from models.train import Hooks, Recipe, Sample, Trained, draw, train

RECIPE = Recipe(patch=(4, 16, 16), batch=2, steps=4, learning_rate=5e-3, schedule="cosine", warm_up=2, average=0.9)


class InMemory:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    @property
    def shape(self) -> tuple[int, int, int]:
        z, y, x = self.values.shape
        return (z, y, x)

    def read(self, begin, end) -> np.ndarray:
        return self.values[tuple(slice(a, b) for a, b in zip(begin, end, strict=True))]


def stripes() -> list[Sample]:
    """Bright stripes with dark gaps between them."""
    y, x = np.mgrid[0:24, 0:24]
    plane = np.where(x % 8 == 0, 0, 1 + x // 8 + 10 * (y // 12))
    labels = np.broadcast_to(plane, (6, 24, 24)).astype(np.uint64)
    image = np.where(labels > 0, 200, 20).astype(np.uint8)
    return [Sample(InMemory(image), InMemory(labels))]


def fresh() -> RSUNet:
    torch.manual_seed(0)
    return RSUNet((4, 6), {"affinity": 3})


def weights(network: torch.nn.Module) -> bytes:
    return b"".join(t.numpy().tobytes() for t in network.state_dict().values())


def run(recipe: Recipe = RECIPE, **hooks: object) -> Trained:
    return train(fresh(), stripes(), recipe, offsets=NEAREST, hooks=Hooks(**hooks))


def test_training_twice_gives_the_same_bytes():
    first, again = run(), run()
    assert first.losses == again.losses
    assert weights(first.network) == weights(again.network)
    assert weights(run(replace(RECIPE, seed=1)).network) != weights(first.network)


def test_a_resumed_training_ends_like_an_uninterrupted_one(tmp_path: Path):
    class Stop(Exception):
        pass

    def stop(step: int, metrics: object) -> None:
        if step == 3:
            raise Stop

    state = tmp_path / "state.safetensors"
    whole = run()
    with pytest.raises(Stop):
        run(state=state, save_every=2, report_every=1, on_progress=stop)
    resumed = run(state=state)
    assert resumed.losses == whole.losses[2:]
    assert weights(resumed.network) == weights(whole.network)
    finished = run(state=state)
    assert finished.losses == ()
    assert weights(finished.network) == weights(whole.network)


def test_a_state_of_another_recipe_is_refused(tmp_path: Path):
    state = tmp_path / "state.safetensors"
    run(state=state)
    with pytest.raises(WeightsInvalid, match="another recipe"):
        run(replace(RECIPE, learning_rate=1e-4), state=state)


def test_it_learns():
    plain = Plain(greyscale=0, missing=0, blur=0, noise=0)
    trained = run(replace(RECIPE, steps=60, learning_rate=2e-2, schedule="constant", augmentation=plain))
    assert np.mean(trained.losses[-5:]) < 0.5 * trained.losses[0]


def test_hooks_are_called():
    seen: list[tuple[int, dict[str, float]]] = []
    trained = run(
        evaluate=lambda network: {"parts": float(len(list(network.parameters())))},
        evaluate_every=2,
        report_every=1,
        on_progress=lambda step, metrics: seen.append((step, dict(metrics))),
    )
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    assert [sorted(metrics) for _, metrics in seen] == [["loss"], ["loss", "parts"]] * 2
    assert trained.metrics == seen[-1][1] | {} or trained.metrics["parts"] == seen[-1][1]["parts"]


def test_a_batch_is_a_function_of_seed_and_step():
    one, same, other = (draw(stripes(), RECIPE, step) for step in (3, 3, 4))
    assert one[0].shape == (2, 1, 4, 16, 16)
    assert one[1].shape == (2, 4, 16, 16)
    assert torch.equal(one[0], same[0])
    assert not torch.equal(one[0], other[0])


def test_a_sample_smaller_than_the_patch_is_refused():
    with pytest.raises(ValueError, match="smaller than the patch"):
        run(replace(RECIPE, patch=(8, 16, 16)))
