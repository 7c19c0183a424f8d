import json
from pathlib import Path

import pytest
import torch

from models.checkpoint import as_kept, load_network, save_weights, take_over
from models.errors import WeightsInvalid
from models.networks import build as build_any
from models.rsunet import build
from models.spec import NEAREST, WeightsSpec, load_spec

SPEC = WeightsSpec(
    architecture={"name": "rsunet", "widths": [4, 6], "heads": {"affinity": 3}},
    offsets=NEAREST,
    voxel_size_nm=(30.0, 12.0, 12.0),
    patch=(6, 16, 16),
    stride=(4, 12, 12),
)


def test_weights_come_back_as_the_float16_that_was_kept(tmp_path: Path):
    network = build(SPEC.architecture)
    spec = save_weights(network, SPEC, tmp_path / "net.safetensors")
    loaded, found = load_network(str(tmp_path / "net.json"))
    assert found == spec == load_spec(str(tmp_path / "net"))
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.safetensors"]


def test_weights_of_another_architecture_are_refused(tmp_path: Path):
    save_weights(build({**SPEC.architecture, "widths": [4, 8]}), SPEC, tmp_path / "net.safetensors")
    with pytest.raises(WeightsInvalid, match="do not fit the architecture"):
        load_network(str(tmp_path / "net"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    network = build(SPEC.architecture)
    with torch.no_grad():
        network.entry.weight[0] = float("nan")
    with pytest.raises(WeightsInvalid, match=r"entry\.weight.*NaN"):
        save_weights(network, SPEC, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_stored_tensor_that_is_not_finite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network = build(SPEC.architecture)
    with torch.no_grad():
        network.entry.weight[0] = float("inf")
    with monkeypatch.context() as patched:
        patched.setattr("models.checkpoint._require_finite", lambda tensors, path: None)
        save_weights(network, SPEC, tmp_path / "net.safetensors")
    for read in (load_network, lambda path: take_over(build(SPEC.architecture), path)):
        with pytest.raises(WeightsInvalid, match=r"entry\.weight.*NaN or infinity"):
            read(str(tmp_path / "net"))


def test_numbers_beyond_float16_survive(tmp_path: Path):
    network = build(SPEC.architecture)
    with torch.no_grad():
        network.entry.weight[0] = 70_000.0
    save_weights(network, SPEC, tmp_path / "net.safetensors")
    loaded, _ = load_network(str(tmp_path / "net"))
    assert torch.equal(loaded.entry.weight, network.entry.weight)
    kept = as_kept(network)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(kept.state_dict()[name], tensor)
    assert not torch.equal(kept.heads["affinity"].weight, network.heads["affinity"].weight)


# ---- starting from other weights -----------------------------------------------------------------------------------
EMBEDDING = {"name": "rsunet", "widths": [4, 6], "heads": {"embedding": 5, "background": 1}}


def test_a_trunk_is_taken_over_and_other_heads_stay_new(tmp_path: Path):
    given = save_weights(build(SPEC.architecture), SPEC, tmp_path / "net.safetensors")
    trained, _ = load_network(str(tmp_path / "net"))
    network = build(EMBEDDING)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    taken = take_over(network, str(tmp_path / "net"))
    assert taken.sha256 == given.sha256
    after, theirs = network.state_dict(), trained.state_dict()
    trunk = {name for name in after if not name.startswith("heads.")}
    assert (taken.tensors, taken.of) == (len(trunk), len(after))
    assert all(torch.equal(after[name], theirs[name]) for name in trunk)
    assert all(torch.equal(after[name], before[name]) for name in after if name not in trunk)


def test_a_head_of_another_size_stays_new(tmp_path: Path):
    save_weights(build(SPEC.architecture), SPEC, tmp_path / "net.safetensors")
    network = build({**SPEC.architecture, "heads": {"affinity": 4}})
    head = network.heads["affinity"].weight.clone()
    taken = take_over(network, str(tmp_path / "net"))
    assert taken.of - taken.tensors == 2  # weight and bias
    assert torch.equal(network.heads["affinity"].weight, head)


def test_weights_that_share_nothing_are_refused(tmp_path: Path):
    save_weights(build(SPEC.architecture), SPEC, tmp_path / "net.safetensors")
    with pytest.raises(WeightsInvalid, match="shares no tensor"):
        take_over(build({**SPEC.architecture, "widths": [5, 7], "heads": {"affinity": 5}}), str(tmp_path / "net"))


def test_a_pickle_is_not_opened(tmp_path: Path):
    path = tmp_path / "net.safetensors"
    spec = save_weights(build(SPEC.architecture), SPEC, path)
    torch.save({"entry.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsInvalid, match="SHA-256"):
        load_network(str(path))
    import hashlib

    data = {**spec.to_json(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(data))
    with pytest.raises(WeightsInvalid, match="not a safetensors file"):
        load_network(str(path))


def test_counts_of_batches_do_not_overflow(tmp_path: Path):
    spec = WeightsSpec(
        architecture={"name": "rsunet_p", "widths": [4, 6], "heads": {"affinity": 3}, "norm": "running"},
        offsets=NEAREST,
        voxel_size_nm=(30.0, 12.0, 12.0),
        patch=(6, 16, 16),
        stride=(4, 12, 12),
    )
    network = build_any(spec.architecture)
    counts = [name for name in network.state_dict() if name.endswith("num_batches_tracked")]
    for name in counts:
        network.state_dict()[name].fill_(100_001)
    save_weights(network, spec, tmp_path / "net.safetensors")
    loaded, _ = load_network(str(tmp_path / "net"))
    assert {int(loaded.state_dict()[name]) for name in counts} <= {100_001}
