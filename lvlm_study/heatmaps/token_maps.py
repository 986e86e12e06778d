"""From visual tokens to pixels: a score per token, painted where that token looks.

Every white-box method ends here. The boxes come from the adapter's own geometry, so centre crops,
padding, tiles read row by row, thumbnails, newline tokens and shrunk grids need no special case and
no literal such as "the last 256 tokens". The painting is exact area coverage: a box border inside a
pixel gives that pixel the tokens on both sides, in proportion.
"""

import torch
from torch import Tensor

from ..errors import StudyError
from ..models.geometry import clipped

SLIVER = 1e-3  # less of a pixel than this counts as not covered: float32 boxes round that much


def paint(
    bound, scores: Tensor, size: tuple[int, int] | None = None, amount: bool = False
) -> Tensor:
    """Map (H, W), float32, of the scores (N,) of all visual tokens, in prompt order; signs stay.

    By default a score is an intensity: a pixel gets the mean score of the tokens that look at it,
    weighted by how much of the pixel each box covers. Every view that shows the pixel (base image,
    tile, thumbnail) then weighs the same, however fine its tokens; only where boxes overlap within
    one view (OneVision's shrunk grid) does that view weigh more. With `amount=True` a score is
    something to be shared out (attention, relevance): it is spread evenly over its whole box, what
    falls on padding is dropped, and views add up. The unit is then score per image area, whatever
    `size`: without padding the mean over all pixels is the sum of the scores of the tokens that
    have a box.

    Newline tokens (NaN boxes) and tokens that see only padding (no area) are left out. Pixels that
    no token looks at, as beyond a centre crop, get 0: they cannot influence the model.
    `size` (h, w) is the size of the map, by default the image's own. Raises StudyError if the
    number of scores is not the number of visual tokens.
    """
    boxes = bound.whole_boxes
    if tuple(scores.shape) != (len(boxes),):
        raise StudyError(
            f"There are {len(boxes)} visual tokens but scores of shape {tuple(scores.shape)}; "
            "give one score per visual token, newline tokens included."
        )
    return paint_boxes(boxes, scores, tuple(bound.size), size, amount)


def paint_boxes(
    boxes: Tensor,
    scores: Tensor,
    image_size: tuple[int, int],
    size: tuple[int, int] | None = None,
    amount: bool = False,
) -> Tensor:
    """The same for any boxes (N, 4) in pixels of an image of `image_size`, such as patches.

    A box may reach beyond the image.
    """
    size = tuple(image_size) if size is None else tuple(size)
    keep = has_area(clipped(boxes, image_size))
    boxes, scores = boxes[keep].double(), scores.detach().cpu()[keep].double()
    boxes = boxes * torch.tensor([size[1] / image_size[1], size[0] / image_size[0]] * 2)
    if amount:
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])  # padding and all
        return _spread(boxes, scores * (size[0] * size[1] / area), size).float()
    covered = _spread(boxes, torch.ones_like(scores), size)
    mean = _spread(boxes, scores, size) / covered.clamp(min=SLIVER)
    return torch.where(covered < SLIVER, 0, mean).float()


def has_area(boxes: Tensor) -> Tensor:
    """Which tokens look at the image (N,) bool: no newline, not padding but for a rounding."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return (sides > SLIVER).all(1).cpu()  # False for NaN


def _spread(boxes: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Sum over boxes of value times covered share of each pixel: (H, W), float64.

    Boxes come in few distinct rows and columns, so three small products do instead of a sum over
    thousands of boxes the size of the image.
    """
    rows, row_of = torch.unique(boxes[:, [1, 3]], dim=0, return_inverse=True)
    columns, column_of = torch.unique(boxes[:, [0, 2]], dim=0, return_inverse=True)
    table = values.new_zeros(len(rows), len(columns))
    table.index_put_((row_of, column_of), values, accumulate=True)
    return _coverage(rows, size[0]).mT @ table @ _coverage(columns, size[1])


def _coverage(spans: Tensor, length: int) -> Tensor:
    """How much of pixel k = [k, k + 1) each span (R, 2) covers: (R, length)."""
    pixel = torch.arange(length, dtype=spans.dtype)
    low = torch.maximum(spans[:, :1], pixel)
    return (torch.minimum(spans[:, 1:], pixel + 1) - low).clamp(min=0)
