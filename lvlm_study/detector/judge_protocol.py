"""The seed's judge: a strong model gives each caption a number from 1 to 10. Off unless asked for.

Giulivi and Boracchi scored captions with GPT-4V (arXiv 2405.14612, supplement, section 1.1; the
two prompts below are theirs). Here nothing calls a judge by itself: a user names one, either a
function (such as a local text model, by `local_judge`) or the address of a server that speaks the
OpenAI chat protocol (`endpoint_judge`). A key is read from an environment variable, sent to that
address only, and written nowhere. What a judge says depends on the judge; scores of two judges
are not to be compared.
"""

import base64
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from ..errors import StudyError
from ..metrics.statistics import Estimate, estimate
from ..pixels.images import load_image
from .perturbation import read_number

CAPTION_QUESTION = "What's the content of the image?"
SYSTEM = (
    "Please act as an impartial judge and evaluate the quality of the caption provided by an AI "
    "assistant for the provided image. Your evaluation should consider factors such as the "
    "helpfulness, relevance, accuracy, depth, and level of detail of the caption. Be as objective "
    "as possible."
)
USER = (
    "From 1 to 10, score this caption for the image: {caption}. Only answer with a number from 1 "
    "to 10."
)
TRUTH = "\n\nWhat the image truly shows: {truth}"  # ours: for judges that read text alone
SECONDS = 60  # how long one reply may take

Judge = Callable[[str, str, np.ndarray | None], str]  # system text, user text, picture: a reply


@dataclass(frozen=True, eq=False)
class Judged:
    """Scores from 1 to 10, NaN where a reply held no such number, with their mean and interval."""

    scores: np.ndarray
    mean: Estimate
    replies: tuple[str, ...] = field(repr=False)


def judge_captions(
    judge: Judge,
    captions: Sequence[str],
    images: Sequence | None = None,
    truths: Sequence[str] | None = None,
) -> Judged:
    """Let `judge` score captions, one call each. Replies without a number are counted as skipped.

    `images` (anything `load_image` takes) go to judges that can see; for those that cannot,
    `truths` says in words what each picture shows. One of the two is needed.
    """
    if images is None and truths is None:
        raise StudyError("A judge needs the images, or in words what they show; give one of them.")
    given = [part for part in (images, truths) if part is not None]
    if any(len(part) != len(captions) for part in given) or not len(captions):
        raise StudyError(
            f"{len(captions)} captions need as many images or truths, not {len(given[0])}."
        )
    replies = []
    for n, caption in enumerate(captions):
        told = USER.format(caption=caption)
        told += TRUTH.format(truth=truths[n]) if truths is not None else ""
        replies.append(judge(SYSTEM, told, None if images is None else load_image(images[n])))
    scores = np.array([read_number(reply) for reply in replies])
    return Judged(scores, estimate(scores), tuple(replies))


def local_judge(generate: Callable[[str], str]) -> Judge:
    """A judge that reads text alone, from any function that continues a prompt.

    It sees no picture, so `judge_captions` must be given `truths`.
    """

    def judge(system: str, user: str, image) -> str:
        """The continuation of both prompts; StudyError for a picture."""
        if image is not None:
            raise StudyError("A local text model sees no pictures; give truths instead of images.")
        return generate(f"{system}\n\n{user}\n")

    return judge


def endpoint_judge(address: str, model: str, key_variable: str | None = None) -> Judge:
    """A judge behind an OpenAI-compatible server, e.g. "http://localhost:8000/v1".

    `key_variable` names the environment variable that holds its key, for servers that want one;
    a key is only sent over https or to this machine. Replies are asked for at temperature 0.
    """
    place = urlsplit(address)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise StudyError(f"{address!r} is no address of a server; write it like http://HOST/v1.")
    headers = {"Content-Type": "application/json"} | _key_header(place, key_variable)
    url = address.rstrip("/") + "/chat/completions"

    def judge(system: str, user: str, image) -> str:
        """The server's reply to one question."""
        parts = [{"type": "text", "text": user}]
        if image is not None:
            parts.append({"type": "image_url", "image_url": {"url": _data_url(image)}})
        turns = [{"role": "system", "content": system}, {"role": "user", "content": parts}]
        body = {"model": model, "messages": turns, "temperature": 0, "max_tokens": 16}
        return _reply(_post(url, body, headers), url)

    return judge


def _key_header(place, variable: str | None) -> dict[str, str]:
    if variable is None:
        return {}
    if not (key := os.environ.get(variable, "").strip()):
        raise StudyError(f"The environment variable {variable} holds no key; set it first.")
    if place.scheme != "https" and place.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise StudyError(f"A key is not sent to {place.hostname} without https; use https://.")
    return {"Authorization": f"Bearer {key}"}


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: picture and key go to the address that the user named."""

    def redirect_request(self, *args):
        """None: no second request is made."""
        return None


def _post(url: str, body: dict, headers: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=SECONDS) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise StudyError(f"The judge at {url} refused with status {error.code}.") from error
    except (OSError, ValueError) as error:
        said = str(getattr(error, "reason", error))
        raise StudyError(f"The judge at {url} gave no usable reply ({said}).") from error


def _reply(found, url: str) -> str:
    try:
        return str(found["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError) as error:
        raise StudyError(
            f"The judge at {url} does not answer as an OpenAI-compatible server does."
        ) from error


def _data_url(rgb: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
