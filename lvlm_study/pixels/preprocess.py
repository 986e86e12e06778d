"""A differentiable copy of Pillow's resizing, and the static plan that feeds a model with it.

The models were trained on pictures that Pillow resized, so an explanation must push its perturbed
picture through the same arithmetic. Pillow resizes one axis after the other and rounds to whole
grey levels in between; we do the same with two banded matrix products and let gradients pass
straight through the rounding. Everything that depends on the image size alone (weights, crops,
tiles, the order of the two passes) is worked out once, when a size is bound.

Grey levels run from 0 to 255 inside this file; `Plan.render` takes pictures in [0, 1].
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import StudyError, unknown

Size = tuple[int, int]  # (height, width)

FILTERS = {"box": 0.5, "bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}  # name: half width
BLOCK = 32  # output rows handled by one dense product: each touches a short run of input rows
FIXED_POINT = 1 << 22  # Pillow stores the weights of 8-bit images in this many steps
HALF_POINT = 1 << 11
WORK_PIXELS = 1_500_000  # above this a picture is reduced first, where the model's view allows
OVERSAMPLING = 2  # a reduced picture keeps at least this many pixels per view pixel and axis


def filter_name(code: int | str) -> str:
    """The name of a Pillow resampling code (`3` is bicubic), as processor configs store it."""
    name = code.lower() if isinstance(code, str) else Image.Resampling(int(code)).name.lower()
    if name not in FILTERS:
        raise unknown("resampling filter", name, FILTERS)
    return name


def kernel(name: str, t: np.ndarray) -> np.ndarray:
    """Filter values at distance `t` from the centre, in output pixels (bicubic has a = -1/2)."""
    d = np.abs(t)
    if name == "box":
        return ((t > -0.5) & (t <= 0.5)).astype(float)
    if name == "bilinear":
        return np.clip(1 - d, 0, None)
    if name == "lanczos":
        return np.where(d < 3, np.sinc(t) * np.sinc(t / 3), 0.0)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def resize_weights(
    source: int, target: int, name: str = "bicubic", start: int = 0, stop: int | None = None
) -> np.ndarray:
    """Rows `start:stop` of the (target, source) matrix that Pillow applies along one axis.

    When shrinking, the filter is stretched by the shrink factor, so that every source pixel counts.
    Each row sums to one and is rounded to Pillow's fixed point: exact ties then break as there.
    """
    stop = target if stop is None else stop
    scale = source / target
    stretch = max(scale, 1.0)
    reach = FILTERS[name] * stretch
    centre = (np.arange(start, stop) + 0.5) * scale
    first = np.clip(np.floor(centre - reach + 0.5).astype(int), 0, None)
    last = np.minimum(np.floor(centre + reach + 0.5).astype(int), source)
    taps = first[:, None] + np.arange((last - first).max())  # (rows, taps)
    values = kernel(name, (taps - centre[:, None] + 0.5) / stretch)
    values[taps >= last[:, None]] = 0
    values /= values.sum(1, keepdims=True)
    values = np.trunc(values * FIXED_POINT + np.copysign(0.5, values)) / FIXED_POINT
    matrix = np.zeros((stop - start, source))
    rows, columns = np.nonzero(values)
    matrix[rows, taps[rows, columns]] = values[rows, columns]
    return matrix


class Axis:
    """One axis of one view: where each output pixel takes its value from.

    `source` image pixels -> padded canvas -> `target` resized pixels -> a window of those. Parts of
    the window that lie outside the resized picture are zeros (`before`, `after`). Parts of the
    canvas outside the image hold the padding colour; `share` is its weight in each output pixel.
    A negative `offset` makes the canvas a crop of the image. Pixel `u` of the view begins at image
    coordinate `u * step + origin`; its filter looks `reach` image pixels beyond its middle.

    With `reduce=f` the source is a picture already averaged over runs of f pixels, and the weights
    are summed over each run: the exact filter, applied to a piecewise constant picture.
    """

    def __init__(
        self,
        source: int,
        target: int,
        name: str = "bicubic",
        window: tuple[int, int] | None = None,
        canvas: int | None = None,
        offset: int = 0,
        reduce: int = 1,
    ):
        canvas = source if canvas is None else canvas
        start, stop = window or (0, target)
        low, high = max(start, 0), min(stop, target)
        matrix = resize_weights(canvas, target, name, low, high)
        first, last = max(offset, 0), min(offset + source, canvas)
        inside = np.zeros((len(matrix), source))
        inside[:, first - offset : last - offset] = matrix[:, first:last]
        share = matrix[:, :first].sum(1) + matrix[:, last:].sum(1)
        if reduce > 1:
            inside = np.add.reduceat(inside, np.arange(0, source, reduce), axis=1)
        self.source, self.length = inside.shape[1], stop - start
        self.before, self.after = low - start, stop - high
        self.step = canvas / target
        self.origin = start * self.step - offset
        self.reach = FILTERS[name] * max(self.step, 1.0)
        self.share = torch.from_numpy(share) if share.any() else None
        self.blocks = tuple(_blocks(inside))
        self.halves = _halves(self.blocks) if reduce == 1 else None

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """Weighted sums along `dim` (-1 or -2), without margins: x (B, 3, h, w) -> float64.

        Fixed-point weights times whole grey levels are exact in float64, so the sums are Pillow's
        to the last bit and no tie can fall the other way, whatever the batch size. They are as
        exact in two float32 products, of the weights' upper and lower digits, and these are faster.
        """
        shape = list(x.shape)
        shape[dim] = self.length - self.before - self.after
        y = x.new_empty(shape, dtype=_exact(x.device))
        split = self.halves is not None and torch.get_float32_matmul_precision() == "highest"
        for (rows, taps, weight), halves in zip(
            self.blocks, self.halves if split else self.blocks, strict=True
        ):
            w = halves.to(x) if split else weight.to(y)  # (rows or twice as many, taps)
            part = x.narrow(dim, taps.start, taps.stop - taps.start).to(w.dtype)
            found = w @ part if dim == -2 else part @ w.T
            if split:
                upper, lower = found.to(y.dtype).chunk(2, dim)
                found = upper.mul_(1 / HALF_POINT).add_(lower, alpha=1 / FIXED_POINT)
            y.narrow(dim, rows.start, rows.stop - rows.start).copy_(found)
        return y

    def adjoint(self, g: Tensor, dim: int) -> Tensor:
        """The transpose of `forward`: gradients of outputs to gradients of inputs."""
        shape = list(g.shape)
        shape[dim] = self.source
        x = g.new_zeros(shape)
        for rows, taps, weight in self.blocks:
            w = weight.to(g)
            if dim == -2:
                x[..., taps, :] += w.T @ g[..., rows, :]
            else:
                x[..., taps] += g[..., rows] @ w
        return x

    def touched(self, used: np.ndarray) -> np.ndarray:
        """Source pixels with any weight in the view pixels `used` (length,) bool -> (source,)."""
        used = used[self.before : self.length - self.after]
        seen = np.zeros(self.source, bool)
        for rows, taps, weight in self.blocks:
            seen[taps] |= (weight.numpy()[used[rows]] != 0).any(0)
        return seen

    def to_source(self, u: np.ndarray) -> np.ndarray:
        """View coordinates (pixel edges) to image coordinates; may lie outside the image."""
        return np.asarray(u, float) * self.step + self.origin


def _halves(blocks) -> tuple[Tensor, ...] | None:
    """Each block's upper and lower eleven digits, float32 (2 rows, taps), both as whole numbers.

    None where their sums over 255 grey levels could outgrow the 24 digits of float32.
    """
    out = []
    for _, _, weight in blocks:
        whole = weight * FIXED_POINT
        upper = (whole / (FIXED_POINT / HALF_POINT)).trunc()
        both = torch.cat([upper, whole - upper * (FIXED_POINT / HALF_POINT)])
        if both.shape[1] and 255 * both.abs().sum(1).max() >= 2**24:
            return None
        out.append(both.float())
    return tuple(out)


def _exact(device: torch.device) -> torch.dtype:
    """float64, except on Apple's GPUs, which have none: there a few ties round differently."""
    return torch.float32 if device.type == "mps" else torch.float64


def _blocks(matrix: np.ndarray):
    """Cut a banded matrix into dense pieces: (rows, columns, weights), skipping empty rows."""
    for first in range(0, len(matrix), BLOCK):
        piece = matrix[first : first + BLOCK]
        columns = np.flatnonzero((piece != 0).any(0))
        low, high = (columns[0], columns[-1] + 1) if len(columns) else (0, 0)
        weight = torch.from_numpy(piece[:, low:high].copy())
        yield slice(first, first + len(piece)), slice(int(low), int(high)), weight


class _Pass(torch.autograd.Function):
    """One resizing pass with Pillow's rounding; the gradient passes straight through it.

    Where the filter overshoots beyond [0, 255] the real pipeline clips, so the gradient is zero.
    """

    @staticmethod
    def forward(ctx, x, axis, dim, colour):
        """x (B, C, h, w) resized along `dim`, rounded to whole grey levels."""
        y = axis.forward(x, dim)
        if axis.share is not None:
            share = axis.share.to(y)
            y += colour * (share[:, None] if dim == -2 else share)
        ctx.axis, ctx.dim = axis, dim
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward((y > -0.5) & (y < 255.5))
        return y.add_(0.5).floor_().clamp_(0, 255).float()

    @staticmethod
    def backward(ctx, g):
        """The pass transposed, and zero where the pipeline clips."""
        (inside,) = ctx.saved_tensors
        return ctx.axis.adjoint(g * inside, ctx.dim), None, None, None


class _Levels(torch.autograd.Function):
    """[0, 1] to grey levels, rounded as if saved to an 8-bit file; gradient straight through."""

    @staticmethod
    def forward(ctx, x, snap):
        """x in [0, 1] to [0, 255]; whole numbers if `snap`."""
        y = x.float() * 255
        return y.round_().clamp_(0, 255) if snap else y

    @staticmethod
    def backward(ctx, g):
        """As if nothing had been rounded."""
        return g * 255, None


@dataclass(frozen=True, eq=False)
class View:
    """One picture made from the image: resized, padded or cropped, then cut into square tiles.

    `tile` is the tile side in pixels; None leaves the view whole, as one tile. Some processors
    resize what they have already resized: `before` is the view that this one is made from.
    """

    rows: Axis
    columns: Axis
    vertical_first: bool = False
    colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tile: int | None = None
    before: "View | None" = None

    @property
    def size(self) -> Size:
        """Height and width of the view, pixels."""
        return self.rows.length, self.columns.length

    @property
    def steps(self) -> tuple[float, float]:
        """Image pixels per view pixel, down and across."""
        down, across = self.before.steps if self.before else (1.0, 1.0)
        return down * self.rows.step, across * self.columns.step

    @property
    def reach(self) -> tuple[float, float]:
        """How many image pixels beyond its middle a view pixel looks, down and across."""
        if self.before is None:
            return self.rows.reach, self.columns.reach
        (down, across), (step_down, step_across) = self.before.reach, self.before.steps
        return down + self.rows.reach * step_down, across + self.columns.reach * step_across

    def to_source(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """View coordinates (pixel edges) to image coordinates; may lie outside the image."""
        y, x = self.rows.to_source(y), self.columns.to_source(x)
        return self.before.to_source(y, x) if self.before else (y, x)

    def touched(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image rows and columns (bool) with any weight in the given view rows and columns."""
        rows, columns = self.rows.touched(rows), self.columns.touched(columns)
        return self.before.touched(rows, columns) if self.before else (rows, columns)

    def render(self, levels: Tensor) -> Tensor:
        """Grey levels (B, 3, H, W) to this view's grey levels (B, 3, h, w)."""
        if self.before:
            levels = self.before.render(levels)
        colour = torch.tensor(self.colour, device=levels.device).view(3, 1, 1)
        passes = [(self.columns, -1), (self.rows, -2)]
        for axis, dim in reversed(passes) if self.vertical_first else passes:
            levels = _Pass.apply(levels, axis, dim, colour)
        edges = (self.columns.before, self.columns.after, self.rows.before, self.rows.after)
        return F.pad(levels, edges) if any(edges) else levels

    def tiles(self, picture: Tensor) -> Tensor:
        """Cut (B, 3, h, w) into tiles in reading order: (B, T, 3, side, side)."""
        if self.tile is None:
            return picture[:, None]
        down, across = self.rows.length // self.tile, self.columns.length // self.tile
        cut = picture.unflatten(3, (across, self.tile)).unflatten(2, (down, self.tile))
        return cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, T, 3, side, side)


@dataclass(frozen=True)
class Spec:
    """How one view is made, in numbers only; `Plan` builds it at full and at reduced size.

    `resized`: size after resizing. `window`: rows then columns (start, stop) kept of the resized
    picture; outside it is zero. `canvas`: size after padding with `colour` (or cropping) and before
    resizing, with the image at `offset`. `first`: a view to make before, and to resize from.
    """

    resized: Size
    filter: str = "bicubic"
    window: tuple[tuple[int, int], tuple[int, int]] | None = None
    canvas: Size | None = None
    offset: tuple[int, int] = (0, 0)
    colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tile: int | None = None
    first: "Spec | None" = None

    def view(self, size: Size, reduce: int = 1) -> View:
        """Build the view of an image of `size`."""
        before = self.first.view(size, reduce) if self.first else None
        if before:
            size, reduce = before.size, 1
        canvas = self.canvas or size
        rows, columns = (
            Axis(
                size[i],
                self.resized[i],
                self.filter,
                self.window[i] if self.window else None,
                canvas[i],
                self.offset[i],
                reduce,
            )
            for i in (0, 1)
        )
        order = vertical_first(canvas, self.resized, self.filter)
        return View(rows, columns, order, self.colour, self.tile, before)


@lru_cache(maxsize=512)
def vertical_first(source: Size, target: Size, name: str) -> bool:
    """Which pass does this Pillow do first for these sizes? Asked of Pillow itself, with noise.

    Older versions always went along rows first; from version 13 on it depends on the sizes, and
    the wrong order moves some pixels by several grey levels. Compares a patch of at most 64x64
    output pixels. Warns if neither order reproduces Pillow.
    """
    if 1 in source or source[0] == target[0] or source[1] == target[1]:
        return False  # one of the passes only copies, so the order does not matter
    noise = np.random.default_rng(0).integers(0, 256, source, dtype=np.uint8)
    code = Image.Resampling[name.upper()]
    real = np.asarray(Image.fromarray(noise).resize(target[::-1], code)).astype(np.float32)
    window = [(max(t // 2 - 32, 0), min(t // 2 + 32, t)) for t in target]
    (top, bottom), (left, right) = window
    rows, columns = (Axis(source[i], target[i], name, window[i]) for i in (0, 1))
    levels = torch.from_numpy(noise).float()[None, None].expand(1, 3, -1, -1)
    wanted = torch.from_numpy(real[top:bottom, left:right].copy())
    wrong = []
    for first in (False, True):
        ours = View(rows, columns, first).render(levels)[0, 0]
        wrong.append((ours != wanted).float().mean().item())
    if min(wrong) > 0.01:
        warnings.warn(
            f"This Pillow resizes {source} to {target} differently from lvlm_study on "
            f"{min(wrong):.1%} of pixels; pixel parity with the model's processor is not given.",
            stacklevel=2,
        )
    return wrong[1] < wrong[0]


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that happens to an image of one size before the vision encoder sees it.

    Very large pictures may be worked on at `work_size`, a whole factor smaller: `reduced` averages
    the picture once, and `render` takes either size. The factor leaves at least two pixels per
    view pixel, so what reaches the model stays close (photographs of 12 megapixels reduced by 3
    for a 336-pixel view: 0.25 grey levels off on average, 4 at most), but `exact` is False then.
    Give the full-size picture to `render` to be exact at any size.
    """

    size: Size
    specs: Sequence[Spec]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1 / 255
    views: tuple[View, ...] = field(init=False, repr=False)
    work_views: tuple[View, ...] = field(init=False, repr=False)
    factor: int = field(init=False)

    def __post_init__(self):
        views = tuple(spec.view(self.size) for spec in self.specs)
        factor = reduction(self.size, views)
        reduced = views if factor == 1 else tuple(s.view(self.size, factor) for s in self.specs)
        for name, value in (("views", views), ("work_views", reduced), ("factor", factor)):
            object.__setattr__(self, name, value)

    @property
    def work_size(self) -> Size:
        """Height and width at which pictures are worked on: the image's, divided by `factor`."""
        return math.ceil(self.size[0] / self.factor), math.ceil(self.size[1] / self.factor)

    @property
    def exact(self) -> bool:
        """True when `reduced` changes nothing."""
        return self.factor == 1

    def reduced(self, x: Tensor) -> Tensor:
        """Average (B, C, H, W) over whole runs of `factor` pixels; the last run may be shorter."""
        if self.exact:
            return x
        return F.avg_pool2d(x, self.factor, ceil_mode=True, count_include_pad=False)

    def render(self, x: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W) in [0, 1] to normalised views, one (B, T, 3, h, w) each."""
        full = tuple(x.shape[-2:]) == self.size
        if not full and tuple(x.shape[-2:]) != self.work_size:
            raise StudyError(
                f"This plan is for images of {self.size} (or {self.work_size}) pixels, "
                f"not {tuple(x.shape[-2:])}; bind the model to the new size first."
            )
        levels = _Levels.apply(x, full)
        mean, std = (x.new_tensor(v, dtype=torch.float32).view(3, 1, 1) for v in self._affine())
        views = self.views if full else self.work_views
        return [view.tiles((view.render(levels) - mean) / std) for view in views]

    def _affine(self):
        """Mean and deviation in grey levels."""
        return np.asarray(self.mean) / self.scale, np.asarray(self.std) / self.scale

    def seen(self, used: Sequence[tuple[np.ndarray, np.ndarray]]) -> Tensor:
        """Image pixels (H, W) bool with any weight in the used rows and columns of each view."""
        mask = np.zeros(self.size, bool)
        for view, (rows, columns) in zip(self.views, used, strict=True):
            mask |= np.outer(*view.touched(rows, columns))
        return torch.from_numpy(mask)


def reduction(size: Size, views: Sequence[View]) -> int:
    """The whole factor by which a very large picture is reduced before the mask is laid on it."""
    wanted = math.ceil(math.sqrt(size[0] * size[1] / WORK_PIXELS))
    room = min(min(_first(v).steps) for v in views) / OVERSAMPLING
    return max(1, min(wanted, int(room)))


def _first(view: View) -> View:
    """The view made from the image itself, at the start of a chain of resizes."""
    return _first(view.before) if view.before else view


def shortest_edge(size: Size, edge: int) -> Size:
    """Resize so that the shorter side becomes `edge` and the longer keeps the ratio, cut down."""
    height, width = size
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def centre_window(resized: Size, crop: Size) -> tuple[tuple[int, int], tuple[int, int]]:
    """The centre crop of the Hugging Face processors; it may reach outside a small picture."""
    return tuple(_centre(have, want) for have, want in zip(resized, crop, strict=True))


def _centre(have: int, want: int) -> tuple[int, int]:
    # A picture that is too small is first padded, with the odd pixel before it, then cropped.
    start = (have - want) // 2
    return start, start + want


def square_padding(size: Size) -> tuple[Size, tuple[int, int]]:
    """Canvas and image offset for padding to a square, as LLaVA-1.5 was trained."""
    side = max(size)
    return (side, side), ((side - size[0]) // 2, (side - size[1]) // 2)
