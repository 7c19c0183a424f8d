from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import resume
from models.augmentation.plain import Plain
from models.crops import Sample, draw
from models.errors import WeightsInvalid
from models.networks import build
from models.objectives import AffinityObjective, EmbeddingObjective
from models.rsunet import RSUNet
from models.train import Hooks, Machine, Recipe, Trained, train

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


def run(recipe: Recipe = RECIPE, network: torch.nn.Module | None = None, **hooks: object) -> Trained:
    return train(network or fresh(), stripes(), recipe, hooks=Hooks(**hooks))


def test_training_twice_gives_the_same_bytes():
    first, again = run(), run()
    assert first.losses == again.losses
    assert weights(first.network) == weights(again.network)
    assert weights(run(replace(RECIPE, seed=1)).network) != weights(first.network)


@pytest.mark.parametrize("name", ["rsunet", "rsunet_p"])
def test_a_resumed_training_ends_like_an_uninterrupted_one(tmp_path: Path, name: str):
    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        norm = {"norm": "running"} if name == "rsunet_p" else {}
        return build({"name": name, "widths": [4, 6], "heads": {"affinity": 3}, **norm})

    whole = run(network=network())
    for stop_at in (1, 3):
        state = tmp_path / str(stop_at)
        seen: list[int] = []
        asked = iter(range(100))
        cut = run(network=network(), state=state, save_every=100, stop=lambda n=stop_at, a=asked: next(a) >= n)
        assert (cut.step, cut.finished) == (stop_at, False)
        resumed = run(network=network(), state=state, on_start=seen.append)
        assert seen == [stop_at]
        assert resumed.losses == whole.losses[stop_at:]
        assert weights(resumed.network) == weights(whole.network)
        assert resumed.finished
    finished = run(network=network(), state=state)
    assert finished.losses == ()
    assert weights(finished.network) == weights(whole.network)


@pytest.mark.slow  # a C++ compiler is at work
@pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated:DeprecationWarning")  # PyTorch's own, of its compiler
def test_a_compiled_training_in_bfloat16_resumes_too_and_learns_alike(tmp_path: Path):
    def compiled(**hooks: object) -> Trained:
        return train(fresh(), stripes(), RECIPE, hooks=Hooks(**hooks), machine=Machine(compile=True, narrow=True))

    whole, asked = compiled(), iter(range(100))
    cut = compiled(state=tmp_path, stop=lambda: next(asked) >= 2)
    assert cut.step == 2
    resumed = compiled(state=tmp_path)
    assert resumed.losses == whole.losses[2:]
    assert weights(resumed.network) == weights(whole.network)
    assert all(p.dtype == torch.float32 for p in whole.network.parameters())
    assert whole.losses != run().losses
    assert np.allclose(whole.losses, run().losses, rtol=0.1)


def test_a_kill_between_parts_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Killed(BaseException):
        pass

    monkeypatch.setattr(resume, "PART_BYTES", 20_000)
    whole, state, written = run(), tmp_path / "state", resume.write_file
    asked = iter(range(9))
    run(state=state, stop=lambda: next(asked) >= 2)
    parts = sorted(path.name for path in state.iterdir())
    assert len(parts) > 3
    assert max(path.stat().st_size for path in state.iterdir()) <= 20_000

    for dies_at in range(1, len(parts) + 1):  # in the last round the parts are there, but not their manifest
        count = iter(range(1, 99))

        def write(path: Path, content: bytes, count=count, dies_at=dies_at) -> None:
            if next(count) == dies_at:
                path.with_name(path.name + ".partial").write_bytes(content[:7])
                raise Killed
            written(path, content)

        monkeypatch.setattr(resume, "write_file", write)
        with pytest.raises(Killed):
            run(state=state)
        monkeypatch.setattr(resume, "write_file", written)
        assert int(resume.load_state(state)["step"]) == 2
    resumed = run(state=state)
    assert resumed.losses == whole.losses[2:]
    assert weights(resumed.network) == weights(whole.network)
    assert not list(state.glob("*.partial"))
    assert len(list(state.glob("*.part"))) + 1 == len(list(state.iterdir()))


def test_a_damaged_state_is_refused(tmp_path: Path):
    run(state=tmp_path)
    part = next(tmp_path.glob("*.part"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsInvalid, match="hash in its manifest"):
        run(state=tmp_path)
    part.unlink()
    with pytest.raises(WeightsInvalid, match="cannot be read"):
        run(state=tmp_path)


def test_an_evaluation_that_was_stopped_is_made_up_for(tmp_path: Path):
    judged: list[int] = []
    wants = {"stop": False}

    def evaluate(network: torch.nn.Module, step: int) -> dict[str, float]:
        wants["stop"] = not judged
        judged.append(step)
        network(torch.zeros(1, 1, 4, 16, 16))
        return {"score": float(step)}

    options = {"state": tmp_path, "evaluate": evaluate, "evaluate_every": 2, "stop": lambda: wants["stop"]}
    assert run(**options).step == 2
    assert judged == [2]
    assert run(**options).finished
    assert judged == [2, 2, 4]


def test_a_state_of_another_recipe_is_refused(tmp_path: Path):
    state = tmp_path / "state"
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
        evaluate=lambda network, step: {"parts": float(len(list(network.parameters())))},
        evaluate_every=2,
        report_every=1,
        on_progress=lambda step, metrics: seen.append((step, dict(metrics))),
    )
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    always = {"loss", "rate", "seconds_per_step"}
    assert [set(metrics) for _, metrics in seen] == [always, always | {"parts", "evaluation_seconds"}] * 2
    assert [metrics["loss"] for _, metrics in seen] == list(trained.losses)
    assert trained.metrics["parts"] == seen[-1][1]["parts"]


def test_the_average_has_the_statistics_of_the_network():
    torch.manual_seed(0)
    network = build({"name": "rsunet_p", "widths": [4, 6], "heads": {"affinity": 3}, "norm": "running"})
    before = [buffer.clone() for buffer in network.buffers()]
    trained = run(network=network)
    assert any(not torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(trained.network.buffers(), network.buffers(), strict=True))


def test_a_loss_that_is_no_number_ends_the_training():
    network = fresh()
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        run(network=network)


def test_a_gradient_that_is_no_number_changes_no_weight():
    network = fresh()
    before = weights(network)
    network.entry.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(FloatingPointError, match="gradient's norm of step 1"):
        run(network=network)
    assert weights(network) == before


def test_an_evaluation_is_no_part_of_the_pace(monkeypatch: pytest.MonkeyPatch):
    clock = {"now": 0.0}
    monkeypatch.setattr("models.train.time.monotonic", lambda: clock["now"])

    def evaluate(network: torch.nn.Module, step: int) -> dict[str, float]:
        clock["now"] += 1000.0
        return {}

    seen: list[dict[str, float]] = []
    run(evaluate=evaluate, evaluate_every=2, on_progress=lambda step, metrics: seen.append(dict(metrics)))
    assert [metrics["evaluation_seconds"] for metrics in seen] == [1000.0, 1000.0]
    assert [metrics["seconds_per_step"] for metrics in seen] == [0.0, 0.0]


def test_a_batch_is_a_function_of_seed_and_step():
    one, same, other = (draw(stripes(), RECIPE.drawing, step) for step in (3, 3, 4))
    assert one.images_BZYX.shape == (2, 4, 16, 16)
    assert one.labels_BZYX.shape == (2, 4, 16, 16)
    np.testing.assert_array_equal(one.images_BZYX, same.images_BZYX)
    assert not np.array_equal(one.images_BZYX, other.images_BZYX)


def test_a_sample_smaller_than_the_patch_is_refused():
    with pytest.raises(ValueError, match="smaller than the patch"):
        run(replace(RECIPE, patch=(8, 16, 16)))


def test_an_embedding_learns_by_the_same_loop():
    torch.manual_seed(0)
    network = build({"name": "rsunet", "widths": [4, 6], "heads": {"embedding": 4, "background": 1}, "crop": [1, 2, 2]})
    plain = Plain(greyscale=0, missing=0, blur=0, noise=0)
    recipe = replace(
        RECIPE,
        steps=60,
        learning_rate=2e-2,
        schedule="constant",
        objective=EmbeddingObjective(),
        crop=(1, 2, 2),
        augmentation=plain,
    )
    seen: list[dict[str, float]] = []
    trained = run(recipe, network, on_progress=lambda step, metrics: seen.append(dict(metrics)))
    assert np.mean(trained.losses[-5:]) < 0.5 * trained.losses[0]
    assert {"internal", "external", "background"} <= set(seen[-1])


def test_what_is_trained_for_is_part_of_the_recipe():
    digests = {
        replace(RECIPE, objective=objective).digest
        for objective in (AffinityObjective(), AffinityObjective(rebalance="none"), EmbeddingObjective())
    }
    assert len(digests) == 3
