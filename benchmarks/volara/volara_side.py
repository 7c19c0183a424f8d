"""volara's own route from affinities to a segmentation; run by compare.py in volara's environment.

ExtractFrags (mutex watershed of blocks with context), AffAgglom (mean affinities of pairs of fragments), GraphMWS (one
mutex watershed on that graph), Relabel: as its documentation chains them. Prints one JSON object with seconds by step.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from funlib.geometry import Coordinate
from volara.blockwise import AffAgglom, ExtractFrags, GraphMWS, Relabel
from volara.datasets import Affs, Labels
from volara.dbs import SQLite
from volara.lut import LUT


def main(settings: dict[str, Any]) -> None:
    folder = Path(settings["folder"])
    offsets = [Coordinate(offset) for offset in settings["offsets"]]
    affs = Affs(store=settings["affinities"], neighborhood=offsets)
    database = SQLite(path=folder / "graph.sqlite", edge_attrs={"near": "float", "far": "float"})
    frags, segments = (Labels(store=folder / "volara.zarr" / name) for name in ("fragments", "segments"))
    lut = LUT(path=str(folder / "lut.npz"))
    near, far = offsets[:3], offsets[3:]
    shared = {"block_size": Coordinate(settings["block"]), "num_workers": settings["workers"]}
    context = Coordinate(settings["context"])
    bias = [settings["near_bias"]] * len(near) + [settings["far_bias"]] * len(far)
    strides = [Coordinate(1, 1, 1)] * len(near) + [Coordinate(settings["strides"])] * len(far)
    steps = {
        "fragments": lambda: ExtractFrags(
            db=database, affs_data=affs, frags_data=frags, context=context, bias=bias, strides=strides, **shared
        ),
        "edges": lambda: AffAgglom(
            db=database, affs_data=affs, frags_data=frags, context=context, scores={"near": near, "far": far}, **shared
        ),
        "graph": lambda: GraphMWS(
            db=database,
            lut=lut,
            weights={"near": (1.0, settings["near_bias"]), "far": (1.0, settings["far_bias"])},
            roi=frags.array("r").roi,
        ),
        "relabel": lambda: Relabel(frags_data=frags, seg_data=segments, lut=lut, **shared),
    }
    seconds = {}
    for name, task in steps.items():
        begin = time.perf_counter()
        task().run_blockwise(multiprocessing=True)
        seconds[name] = time.perf_counter() - begin
    sys.stdout.write(
        "\n" + json.dumps({"seconds": seconds, "segments": str(folder / "volara.zarr" / "segments")}) + "\n"
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
