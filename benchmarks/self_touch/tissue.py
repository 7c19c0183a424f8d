"""The held-out volumes of serial sections before and after the correction of self-touches, by two routes.

embedding   the embedding net's edges with its best recipe (mutex watershed)
affinity    edges of an affinity net (`--affinity`) with a recipe of it

Volumes are cut out, so that nothing is seen of what a network was trained on, and kept with their runs in a folder
outside of the project. One run a volume and route: other values of contacts.expand_xy bring it up to date.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import held_out
from benchmarks.models.applied import ROOT
from benchmarks.models.held_out import CALLED, Volume
from benchmarks.self_touch.healed import (
    COLUMNS,
    Config,
    embedding_recipe,
    print_head,
    print_row,
    print_thresholds,
    segment,
    usual,
    weights_at,
)
from models.spec import load_spec

SERIAL = ("ac4", "ac3_val")


def main() -> None:
    options = options_of()
    print_head(["volume", "route", "expand_xy", *COLUMNS, "aim"])
    every = {}
    for volume in held_out.volumes_of(options):
        crop = "x".join(map(str, volume.image_ZYX.shape))
        folder = options.folder / f"{volume.name}-{crop}"
        store(volume, folder)
        for route, sections in routes(options).items():
            for expand in options.expand:
                run = segment(folder / route, config(volume, sections, expand, options))
                print_row([CALLED[volume.name], route, str(expand), *run.row(), run.aim])
                every[f"{CALLED[volume.name]}, {route}, {expand}"] = run
    print_thresholds(every)


def store(volume: Volume, folder: Path) -> None:
    """Image and truth as files."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "image.npy", volume.image_ZYX)
    np.save(folder / "truth.npy", volume.truth_ZYX)


def routes(options: Any) -> dict[str, Config]:
    """The sections that make segments, by the name of the route."""
    own = {"predict": {"weights": options.weights}, **embedding_recipe(options.weights)}
    known = load_spec(options.affinity).recipes or {}
    if options.recipe not in known:
        raise SystemExit(f"{options.affinity} has no recipe {options.recipe!r}; it has {', '.join(known) or 'none'}")
    other = {"recipe": options.recipe, "predict": {"weights": options.affinity}}
    return {name: way for name, way in {"embedding": own, "affinity": other}.items() if name in options.routes}


def config(volume: Volume, sections: Config, expand: int, options: Any) -> Config:
    """What a run is asked to do."""
    given = {"image": "image.npy", "truth": "truth.npy", "voxel_size_nm": volume.voxel_size_nm}
    healed = {"enabled": True, "weights": options.weights, "theta_d": options.theta_d}
    healed["theta_self_contact"] = options.theta_self_contact
    return usual(input=given, **sections, contacts={"expand_xy": expand}, self_touch=healed)


def options_of() -> Any:
    """Which weights, volumes, routes and settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="of an embedding net; a shipped name or a path")
    parser.add_argument("--affinity", default="ac4_affinity", help="weights of the route affinity")
    parser.add_argument("--recipe", default="mean", help="of these weights")
    parser.add_argument("--routes", nargs="+", choices=("embedding", "affinity"), default=["embedding", "affinity"])
    parser.add_argument("--expand", type=int, nargs="+", default=[0, 1, 2, 3], help="contacts.expand_xy")
    parser.add_argument("--theta-d", type=float, default=1.5)
    parser.add_argument("--theta-self-contact", type=float, default=0.25)
    parser.add_argument("--folder", type=Path, required=True, help="of volumes and runs; outside of the project")
    held_out.add_arguments(parser)
    parser.set_defaults(volumes=list(SERIAL))
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    if options.folder == ROOT or ROOT in options.folder.parents:
        raise SystemExit(
            f"{options.folder} lies in the project: what is computed of private volumes must lie elsewhere"
        )
    options.weights, options.affinity = weights_at(options.weights), weights_at(options.affinity)
    return options


if __name__ == "__main__":
    main()
