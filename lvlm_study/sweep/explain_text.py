"""What `lvlm-study explain` shows on a terminal: answer, marked words, status, scores and cost."""

import math

from ..answers import LARGEST, marked, token_spans
from ..heatmaps.base import MIN_GAP

MINI_NOTE = (
    "Note: the mini models were trained on drawn scenes only; about anything else their answers "
    "mean little, and the map shows what those answers rest on."
)
STATUS = {
    "ok": "ok: {what} depend on the image, and the map shows where.",
    "chosen": "ok: the map is of {what}, whether or not it needs the image (mean probability "
    "{on:.3f}, on the {baseline} image {off:.3f}).",
    "no_crucial_tokens": "no crucial tokens: no word of the answer becomes {ratio:.1f} times less "
    "likely on the {baseline} image{weak}, so there is nothing to map.",
    "no_keywords": "no crucial tokens: the answer has no keyword, so there is nothing to map.",
    "no_gap": "no gap: the mean probability of {what} changes by less than {least} ({on:.3f}, on "
    "the {baseline} image {off:.3f}), so the map has little to explain and cannot be scored.",
    "diverged": "diverged: the method returned numbers that are not finite; the map is empty.",
    "constant": "constant: the map has the same value everywhere and says nothing.",
}
OF = {  # what a map is of, by how its words were chosen
    "llr": "the marked words",
    "all": "the whole answer",
    "keywords": "the text of the answer's keywords",
    "word": "the word that was asked for",
    "numbers": "the text of the tokens that were asked for",
}
COLOURS, BRACKETS = ("\033[1;31m", "\033[0m"), ("[", "]")  # around a crucial word
ROWS = {"Scores": "map", "random": "random", "centre": "center", "difference": "difference"}
LARGE = "The image is very large and was worked on reduced by a whole factor."


def report(ex, scores: dict, given: bool = False, colours: bool = False) -> str:
    """The text of an explanation and its `score_summary`; `given`: the answer was not its own."""
    rel = ex.reliance
    lines = [
        *([MINI_NOTE, ""] if ex.model.startswith("mini/") else []),
        f"Question  {ex.question}",
        f"Answer    {marked(ex.answer, rel.crucial, *(COLOURS if colours else BRACKETS))}",
        *(["          given with --answer, not the model's own"] if given else []),
        *([f"Contrast  {ex.contrast} (scores are of the word alone)"] if ex.contrast else []),
        *_cut_line(ex.answer),
        *_token_lines(ex.answer, rel),
        f"          without the image the answer is {_loss(rel.total_drop)} likely",
        f"Status    {_status(ex)}",
        *(f"Note      {note}." for note in ex.notes),
        *_score_lines(scores),
        _cost_line(ex.cost),
        *([LARGE] if not ex.target.exact else []),
    ]
    return "\n".join(lines)


def _status(ex) -> str:
    """The status in a sentence that is true of the words that were chosen."""
    rel, choice, key = ex.reliance, ex.target.choice, ex.status
    if key == "ok" and choice.tokens != "llr":
        key = "chosen"
    if key == "no_crucial_tokens" and choice.tokens == "keywords":
        key = "no_keywords"
    on, off = (p[rel.crucial].exp().mean() for p in (rel.log_probs, rel.baseline_log_probs))
    return STATUS[key].format(
        what=OF[choice.tokens],
        weak=" (see the note: it is a weak blur)" if ex.notes else "",
        ratio=math.exp(min(rel.threshold, LARGEST)),
        baseline=choice.baseline,
        least=MIN_GAP,
        on=float(on),
        off=float(off),
    )


def _cut_line(answer) -> list[str]:
    count = len(answer.token_ids)
    tokens = f"{count} token" if count == 1 else f"{count} tokens"
    note = f"          cut after {tokens}, before its end; allow more with --max-new-tokens"
    return [f"{note} {2 * count}"] if answer.truncated else []


def _token_lines(answer, rel) -> list[str]:
    return [
        f"          {answer.text[start:end]!r:<16} log-likelihood ratio {ratio:6.2f} nats"
        for (start, end), ratio, crucial in zip(
            token_spans(answer), rel.llr.tolist(), rel.crucial, strict=True
        )
        if crucial
    ]


def _loss(total_drop: float) -> str:
    return "no less" if total_drop < 0 else f"{total_drop:.0%} less"


def _score_lines(scores: dict) -> list[str]:
    if scores["map"].get("deletion") is None:
        return []
    lines = ["          deletion  insertion  gap      (deletion low, insertion high is good)"]
    for title, name in ROWS.items():
        row = scores[name]
        draws = f"   mean of {row['draws']} random maps" if name == "random" else ""
        numbers = f"{row['deletion']:8.3f}{row['insertion']:11.3f}{row['gap']:+8.3f}"
        lines.append(f"{title:<11}{numbers}{draws}")
    return lines


def _cost_line(cost) -> str:
    return (
        f"Cost      {cost.forward} forward and {cost.backward} backward passes, "
        f"{cost.seconds:.1f} s, {cost.peak_bytes / 2**20:.0f} MiB more at the peak"
    )
