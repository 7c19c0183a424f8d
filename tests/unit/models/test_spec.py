import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from models.errors import WeightsInvalid
from models.offsets import AFFINITY_12NM, METRIC
from models.spec import NEAREST, TOP, WeightsSpec, encoded, find, from_json, load_spec, smooth_code_table


def spec(**changes: object) -> WeightsSpec:
    return replace(
        WeightsSpec(
            architecture={"name": "rsunet", "widths": [4, 6], "heads": {"affinity": 3}},
            offsets=NEAREST,
            voxel_size_nm=(30.0, 12.0, 12.0),
            patch=(8, 16, 16),
            stride=(6, 12, 12),
        ),
        **changes,
    )


def embedding_spec(**changes: object) -> WeightsSpec:
    return replace(
        WeightsSpec(
            architecture={
                "name": "rsunet",
                "widths": [16, 32, 64, 128],
                "heads": {"embedding": 24, "background": 1},
                "crop": [2, 16, 16],
            },
            offsets=METRIC,
            voxel_size_nm=(29.0, 12.0, 12.0),
            patch=(20, 128, 128),
            stride=(8, 48, 48),
            delta=1.5,
        ),
        **changes,
    )


def write_pair(folder: Path, content: bytes = b"weights", **changes: object) -> Path:
    path = folder / "net.safetensors"
    path.write_bytes(content)
    stated = spec(sha256=hashlib.sha256(content).hexdigest(), **changes)
    path.with_suffix(".json").write_bytes(encoded(stated))
    return path


def test_the_default_code_table_is_strictly_monotone_and_finest_at_both_ends():
    table = smooth_code_table()
    steps = [b - a for a, b in pairwise(table)]
    assert table[0] == 0
    assert table[-1] == TOP
    assert min(steps) > 0
    assert steps[0] == steps[-1] < 5
    assert max(steps) < 400
    assert table[255 - 40] == TOP - table[40]


def test_a_spec_survives_its_file(tmp_path: Path):
    path = write_pair(tmp_path, training={"seed": 3})
    loaded = load_spec(str(path))
    assert loaded == spec(sha256=loaded.sha256, training={"seed": 3})
    assert load_spec(str(path.with_suffix(".json"))) == loaded
    assert load_spec(str(path.with_suffix(""))) == loaded


def test_the_identity_holds_the_hash_but_not_how_it_was_trained():
    a = spec(sha256="a", training={"steps": 1})
    assert a.identity == spec(sha256="a").identity
    assert a.identity != spec(sha256="b").identity
    assert a.identity != spec(sha256="a", stride=(4, 12, 12)).identity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"architecture": {"name": "resnet"}}, "architecture is 'resnet'"),
        ({"architecture": {"name": "rsunet", "widths": [], "heads": {"affinity": 3}}}, "widths"),
        ({"architecture": {"name": "rsunet", "widths": [4, 6], "heads": {"affinity": 4}}}, "4 channels for 3 offsets"),
        ({"normalisation": "zscore"}, "zscore"),
        ({"voxel_size_nm": (30.0, 0.0, 12.0)}, "positive lengths"),
        ({"offsets": ((0, 0, -1), (0, -1, 0), (-1, 0, 0))}, "first three offsets"),
        ({"offsets": (*NEAREST[:2], (0, 0, -2))}, "first three offsets"),
        ({"patch": (8, 15, 16)}, "must divide by 2"),
        ({"patch": (1, 16, 16)}, "two voxels"),
        ({"stride": (8, 12, 12)}, "smaller than the patch"),
        ({"stride": (0, 12, 12)}, "must be positive"),
        ({"code_table": (0, 1, TOP)}, "3 entries"),
        ({"code_table": (*([0] * 255), 65534)}, "not 0 to 65535"),
        ({"code_table": (0, 9, 8, *([10] * 252), TOP)}, "not monotone"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(WeightsInvalid, match=message):
        spec(**changes)


def test_an_embeddings_spec_survives_its_json():
    stated = embedding_spec()
    assert stated.output == (16, 96, 96)
    assert stated.to_json()["delta"] == 1.5
    assert from_json(json.loads(encoded(stated))) == stated


def test_the_spec_of_an_affinity_net_has_the_keys_it_always_had():
    assert "delta" not in spec().to_json()
    assert "delta" not in spec().identity
    tiny = json.loads(find("tiny").read_bytes())
    assert encoded(from_json(tiny)) == find("tiny").read_bytes()


def test_twelve_channels_of_affinities():
    stated = spec(
        architecture={"name": "rsunet_p", "widths": [28, 36], "heads": {"affinity": 12}, "norm": "running"},
        offsets=AFFINITY_12NM,
    )
    assert stated.output == stated.patch
    assert stated.network.norm == "running"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": None}, "needs a positive delta, not None"),
        ({"delta": 0.0}, "needs a positive delta"),
        ({"stride": (16, 48, 48)}, "smaller than the patch"),
        ({"stride": (8, 48, 96)}, "smaller than the patch"),
        ({"patch": (20, 32, 128)}, "too little"),
        ({"patch": (20, 124, 128)}, "must divide by 8"),
        ({"offsets": (*NEAREST, (0, 0, 1))}, "an edge twice"),
        ({"offsets": (*NEAREST, (0, 0, 0))}, "from a voxel to itself"),
        ({"offsets": (*NEAREST, (-16, 0, 0))}, "from every voxel"),
        ({"architecture": {"name": "rsunet", "widths": [4], "heads": {"affinity": 12}}}, "no head 'embedding'"),
        ({"architecture": {"name": "rsunet", "widths": [4], "heads": {"embedding": 24}}}, "head 'background'"),
    ],
)
def test_an_embedding_that_cannot_work_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(WeightsInvalid, match=message):
        embedding_spec(**changes)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("patch"), "lacks"),
        (lambda d: d.update(extra=1), "unknown keys"),
        (lambda d: d.update(patch=[8, 16]), "three whole numbers"),
        (lambda d: d.update(patch=[8, 16, 16.0]), "three whole numbers"),
        (lambda d: d.update(offsets=7), "wrong kind"),
        (lambda d: d.update(architecture=[]), "wrong kind"),
        (lambda d: d.update(delta="far"), "wrong kind"),
    ],
)
def test_a_spec_that_was_tampered_with_is_refused(edit, message: str):
    data = spec().to_json()
    edit(data)
    with pytest.raises(WeightsInvalid, match=message):
        from_json(data)


def test_changed_weights_are_refused(tmp_path: Path):
    path = write_pair(tmp_path)
    path.write_bytes(b"other weights")
    with pytest.raises(WeightsInvalid, match="SHA-256"):
        load_spec(str(path))


def test_missing_and_damaged_files_are_named(tmp_path: Path):
    with pytest.raises(WeightsInvalid, match=r"cannot read.*nowhere"):
        load_spec(str(tmp_path / "nowhere.json"))
    path = write_pair(tmp_path)
    path.unlink()
    with pytest.raises(WeightsInvalid, match="cannot read the weights"):
        load_spec(str(path))
    path.with_suffix(".json").write_text("{")
    with pytest.raises(WeightsInvalid, match="not JSON"):
        load_spec(str(path))
    path.with_suffix(".json").write_text(json.dumps([1]))
    with pytest.raises(WeightsInvalid):
        load_spec(str(path))


def test_plain_names_are_shipped_weights():
    assert find("tiny").parent.name == "shipped"
    assert find("./tiny") == Path("tiny.json")
    assert find("a/tiny.safetensors") == Path("a/tiny.json")


def test_spec_and_lattice_do_without_torch():
    code = "import sys, models.spec, models.lattice; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
