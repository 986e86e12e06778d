"""Two drawn pictures in one prompt, of which one has the object that is asked about."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from .sprites import SpriteItem, sprites

NAMES = ("first", "second")


@cache
def sprites_two() -> tuple[SpriteItem, ...]:
    """96 prompts of two pictures, two items each: one a picture, in the order of the prompt.

    The attribute questions of `sprites`, "Which color does the rabbit have?". The other picture is
    that of the next such question which has neither an object of that name nor one of that colour,
    so that it can neither answer nor confuse. The deciding object is in the first picture of every
    other prompt. `item.image` is one of the two; `extra["among"]` has the items of both pictures in
    order and `extra["place"]` which of them this is: a model is asked about both, and its answer
    explained in this one (`models.several.among`). `evidence` is the object where it is, and None
    in the other picture; `extra["holds"]` says so, and `extra["picture"]` which items are one
    prompt. For models that read several pictures.
    """
    asked = [item for item in sprites() if item.category == "attribute"]
    return tuple(one for n in range(len(asked)) for one in _prompt(asked, n))


def _prompt(asked: Sequence[SpriteItem], n: int) -> list[SpriteItem]:
    holder = asked[n]
    other = next(one for one in [*asked[n + 1 :], *asked[:n]] if _unlike(one, holder))
    pair = (holder, other) if n % 2 == 0 else (other, holder)
    return [_of(holder, pair, place) for place in range(2)]


def _unlike(one: SpriteItem, holder: SpriteItem) -> bool:
    """Whether no object of a picture has the name or the colour of those that decide another."""
    scene, deciding = holder.extra["scene"], holder.extra["objects"]
    told = {word for i in deciding for word in (scene.objects[i].name, scene.objects[i].color)}
    return told.isdisjoint(w for o in one.extra["scene"].objects for w in (o.name, o.color))


def _of(holder: SpriteItem, pair: tuple[SpriteItem, ...], place: int) -> SpriteItem:
    shown, name = pair[place], holder.id.rpartition("/")[2]
    own = shown is holder
    extra = holder.extra | {"scene": shown.extra["scene"], "sha256": shown.extra["sha256"]}
    extra |= {"objects": holder.extra["objects"] if own else None, "holds": own}
    return replace(
        holder,
        id=f"sprites_two/{name}-{NAMES[place]}",
        image=shown.source,
        evidence=holder.evidence if own else None,
        benchmark="sprites_two",
        extra=extra | {"among": pair, "place": place, "picture": name},
    )
