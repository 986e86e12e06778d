"""Options that no method takes: one sentence, before anything is computed."""

import pytest
from refusals import refuses
from white_box import photo

from lvlm_study.heatmaps import explain

BAD = {
    "igos": [
        ({"stepps": 3}, "did you mean steps"),
        ({"steps": 0}, "at least one iteration"),
        ({"mask_size": "32"}, "mask_size .* must be whole numbers, not '32'"),
        ({"mask_size": 32.0}, "must be whole numbers, not 32.0"),
        ({"iterations": 2.5}, "iterations of igos must be a whole number, not 2.5"),
        ({"lr": True}, "lr of igos must be a number, not True"),
        ({"l2_unit": "rms"}, "'sum' or 'mean'"),
        ({"compat": "other"}, "compat is"),
        ({"preset": "fats"}, "did you mean fast"),
        ({"question": " "}, "question is empty"),
    ],
    "igoss": [({}, "did you mean igos")],
    "igos[preset=fast,lr=3]": [({}, "write method='igos', preset='fast', lr=3.0|lr=3.0, preset")],
    "igos[lrr=3]": [({}, "did you mean lr")],
    "rise": [({"cells": "7"}, "cells of rise must be a whole number"), ({"masks": 0}, "2 masks")],
    "occlusion": [({"stride": 0.5}, "never be covered")],
    "integrated_gradients": [({"steps": 0}, "at least 1 step")],
    "smoothgrad": [({"samples": 0}, "at least 1 sample")],
    "eagle": [({"regions": 1}, "at least 2 regions"), ({"batch": 0}, "at least 2 regions")],
    "tam": [(odd, "odd kernel") for odd in ({"kernel": 2}, {"kernel": 0}, {"combine": "max"})],
    "iia": [(bad, "1 step and a path of") for bad in ({"steps": 0}, {"path": "sideways"})],
    "attention": [
        ({"layer": 2}, "asked for layer 2, but the model has 2"),
        ({"heads": "min"}, "heads=mean, max or"),
    ],
    "rollout": [({"start_layer": -3}, "asked for layer -3")],
    "gae": [({"start_layer": 9}, "asked for layer 9")],
    "grad_cam": [  # LLaVA never uses its last block: a map of it would be of zeros
        ({"layer": -1}, "Layer 1 .* does not feed the projector.* layer 0"),
        ({"layer": 7}, "asked for layer 7, but the model has 2"),
    ],
    "llava_cam": [
        ({"layer": -1}, r"last decoder layer \(1\).*name an earlier"),
        ({"samples": 0}, "at least 1 sample"),
    ],
}


@pytest.mark.parametrize("method", BAD)
def test_bad_options_are_told(tiny_llava, method):
    for options, message in BAD[method]:
        call = {"question": "What colour?", "method": method, "tokens": "all"} | options
        refuses(message, explain, tiny_llava, photo(), **call)
