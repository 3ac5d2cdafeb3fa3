# /// script
# requires-python = ">=3.10"
# dependencies = ["gmsh>=4.13"]
# ///
"""Regenerate meshes/*.msh from their .geo sources with gmsh.

Run `uv run scripts/make_meshes.py [NAME ...]` (uv installs gmsh for this script alone), or `pip install gmsh` and
`python scripts/make_meshes.py`. Format and cell sizes stand in the .geo files, so that `gmsh -2 disk.geo` gives the
same mesh.
"""

import argparse
from pathlib import Path

import gmsh

MESHES = Path(__file__).resolve().parent.parent / "meshes"


def make(source: Path) -> Path:
    """Mesh one .geo file and write the .msh file beside it."""
    target = source.with_suffix(".msh")
    gmsh.initialize(interruptible=False)
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.option.setNumber("General.NumThreads", 1)  # the same mesh every time
        gmsh.open(str(source))
        gmsh.model.mesh.generate(gmsh.model.getDimension())
        gmsh.write(str(target))
    finally:
        gmsh.finalize()
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description="Regenerate the meshes in meshes/ from their .geo sources.")
    names = sorted(source.stem for source in MESHES.glob("*.geo"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones (default: all): {', '.join(names)}")
    for name in parser.parse_args().names or names:
        target = make(MESHES / f"{name}.geo")
        print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
