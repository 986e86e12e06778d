"""Make the picture that opens the README: one drawn scene, one question, one explanation.

Runs the command that a reader would, on an item of the test set; writes the book's example.png.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from lvlm_study import cli, load_benchmark

ITEM = "sprites/attribute-004"
ROOT = Path(__file__).resolve().parents[1]


def main(item_id: str = ITEM) -> int:
    """Explain the item and keep the overlay."""
    item = next(i for i in load_benchmark("sprites") if i.id == item_id)
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.png"
        Image.fromarray(item.rgb).save(scene)
        out = Path(folder) / "out"
        code = cli.main(
            ["explain", str(scene), item.question, "--model", "mini/llava-1.5", "--out", str(out)]
        )
        if code == 0:
            shutil.copy(out / "overlay.png", ROOT / "book" / "_static" / "example.png")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
