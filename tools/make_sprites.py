"""Bake what SpriteVQA is drawn from and write its question files (run once, never at run time).

    python tools/make_sprites.py atlas glyphs questions [--folder data/sprites]

`atlas`: each glyph of Google's Noto Color Emoji becomes luminance + alpha at three sizes with a
dark outline, so that a scene can tint it in any colour by integer arithmetic and still separate it
from any background. Needs Debian's fonts-noto-color-emoji. `glyphs`: capital letters of Pillow's
built-in font as alpha. `questions`: the test set and the subsets, each from its own seed.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from lvlm_study.scenes import clutter, pairs, prior, shortcut, testset
from lvlm_study.scenes.shortcut import HEIGHT

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
SIZES = {"small": 48, "medium": 64, "large": 92}  # pixels in a 336-pixel scene
OUTLINE = 2
CLASSES = {  # name: (code point, kind)
    "cat": ("1F408", "animal"),
    "fish": ("1F41F", "animal"),
    "rabbit": ("1F407", "animal"),
    "butterfly": ("1F98B", "animal"),
    "duck": ("1F986", "animal"),
    "car": ("1F697", "vehicle"),
    "bus": ("1F68C", "vehicle"),
    "bicycle": ("1F6B2", "vehicle"),
    "airplane": ("2708", "vehicle"),
    "sailboat": ("26F5", "vehicle"),
    "apple": ("1F34E", "fruit"),
    "banana": ("1F34C", "fruit"),
    "cherry": ("1F352", "fruit"),
    "pineapple": ("1F34D", "fruit"),
    "strawberry": ("1F353", "fruit"),
    "umbrella": ("2602", "thing"),
    "key": ("1F511", "thing"),
    "hammer": ("1F528", "thing"),
    "guitar": ("1F3B8", "thing"),
    "bell": ("1F514", "thing"),
}


def glyph(code: str) -> Image.Image:
    """One emoji as RGBA, cropped to what is drawn."""
    image = Image.new("RGBA", (160, 160))
    font = ImageFont.truetype(FONT, 109)
    ImageDraw.Draw(image).text((12, 12), chr(int(code, 16)), font=font, embedded_color=True)
    return image.crop(image.getchannel("A").getbbox())


def sprite(code: str, size: int) -> np.ndarray:
    """(size, size, 2) uint8: luminance stretched to full contrast, alpha with a dark outline."""
    image, inner = glyph(code), size - 2 * OUTLINE
    scale = inner / max(image.size)
    image = image.resize([max(1, round(s * scale)) for s in image.size], Image.LANCZOS)
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    alpha = canvas.getchannel("A")
    light = np.asarray(canvas.convert("L"), float)
    inside = np.asarray(alpha) > 200
    low, high = np.percentile(light[inside], [3, 97])
    light = np.clip((light - low) / max(high - low, 1), 0, 1) * 115 + 140
    grown = np.asarray(alpha.filter(ImageFilter.MaxFilter(2 * OUTLINE + 1)), float)
    body = np.asarray(alpha, float) / 255
    return np.stack([light * body, np.maximum(grown, 255 * body)], -1).round().astype(np.uint8)


def write_atlas(folder: Path) -> None:
    """One row a class, one column a size."""
    step = max(SIZES.values())
    atlas = np.zeros((step * len(CLASSES), step * len(SIZES), 2), np.uint8)
    for row, (code, _) in enumerate(CLASSES.values()):
        for column, size in enumerate(SIZES.values()):
            y, x = row * step, column * step
            atlas[y : y + size, x : x + size] = sprite(code, size)
    Image.fromarray(atlas, "LA").save(folder / "atlas.png", optimize=True)
    index = {
        "cell": step,
        "sizes": SIZES,
        "outline": OUTLINE,
        "classes": [
            {"name": name, "code": code, "kind": kind} for name, (code, kind) in CLASSES.items()
        ],
    }
    (folder / "atlas.json").write_text(json.dumps(index, indent=1) + "\n")


def write_glyphs(folder: Path) -> None:
    """Capital letters and the space side by side, as alpha, with each one's column and width."""
    font, sheet, places = ImageFont.load_default(size=34), [], {}
    for c in " ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        width = round(font.getlength(c)) + 1
        cell = Image.new("L", (width, HEIGHT))
        ImageDraw.Draw(cell).text((0, HEIGHT // 2 + 12), c, fill=255, font=font, anchor="ls")
        places[c] = (sum(part.shape[1] for part in sheet), width)
        sheet.append(np.asarray(cell))
    Image.fromarray(np.concatenate(sheet, 1)).save(folder / "glyphs.png", optimize=True)
    (folder / "glyphs.json").write_text(json.dumps(places) + "\n")


def write_questions(folder: Path) -> None:
    """Every file of questions, with its checksum on the screen."""
    files = {
        "test": testset.build(),
        "pairs": pairs.build(),
        "prior": prior.build(),
        "shortcut": shortcut.build(),
        "describe": testset.build_descriptions(),
        **{name: clutter.build(name) for name in clutter.SEEDS},
    }
    for name, records in files.items():
        print(name, testset.write(folder / f"{name}.jsonl", records))


PARTS = {"atlas": write_atlas, "glyphs": write_glyphs, "questions": write_questions}


def main() -> None:
    """Write the parts that were asked for."""
    parser = argparse.ArgumentParser(description="Bake the sprites and write their questions.")
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--folder", type=Path, default=Path("data/sprites"))
    options = parser.parse_args()
    for part in options.parts:
        PARTS[part](options.folder)


if __name__ == "__main__":
    main()
