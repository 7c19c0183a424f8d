import json
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_network, save_weights
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
    save_weights(network, SPEC, tmp_path / "net.safetensors")
    with pytest.raises(WeightsInvalid, match=r"entry\.weight.*NaN"):
        load_network(str(tmp_path / "net"))


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
