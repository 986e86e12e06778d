"""What a device says when it is full, or lost, turned into one sentence.

Full is a state that passes: a smaller batch may fit. Lost is not: after an illegal access or a
failed assertion CUDA answers every later call of the process with the same error, whatever it asks.
"""

from contextlib import contextmanager

import torch

from ..errors import StudyError

FULL = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
FULL += ("STATUS_NOT_INITIALIZED",)  # cuBLAS and cuDNN find no room for their own workspace
LOST = ("CUDA error:", "HIP error:", "CUDNN_STATUS_EXECUTION_FAILED", "STATUS_INTERNAL_ERROR")
LOST += ("CUBLAS_STATUS_EXECUTION_FAILED", "NCCL Error")
CUT = ("does not require grad", "not have been used in the graph", "derivative for")


class OutOfMemory(StudyError):
    """Memory ran out, and there was no smaller piece to try."""


class NoGradient(StudyError):
    """No gradient passes through the model."""


class DeviceLost(StudyError):
    """The device will answer nothing more in this process."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, OutOfMemory | torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in FULL)


def device_lost(error: BaseException) -> bool:
    """Whether an error is one after which a GPU answers nothing more."""
    if isinstance(error, DeviceLost):
        return True
    said = isinstance(error, RuntimeError) and any(text in str(error) for text in LOST)
    return said and not out_of_memory(error)


@contextmanager
def passable(model: str):
    """What torch says of a gradient that meets an operation without a derivative, as a sentence.

    Some kernels for quantised weights have none.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(text in str(error) for text in CUT):
            raise
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise NoGradient(
            f"Gradients do not pass through {model} ({first}); methods that look forward alone do "
            "without, as occlusion, rise and eagle."
        ) from error


@contextmanager
def told(doing: str):
    """A device's trouble inside, as a StudyError; everything else passes as it is.

    The sentence is raised outside of the handler, so that what the failed frames held is free.
    """
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        found = sentence(error, doing)
        if found is None:
            raise
    raise found


def sentence(error: BaseException, doing: str) -> StudyError | None:
    """What to say of an error while `doing` something; None if it is no trouble of a device."""
    if isinstance(error, StudyError):
        return error
    if out_of_memory(error):
        return OutOfMemory(
            f"Memory ran out while {doing}; use a smaller picture or model, --dtype bfloat16, or "
            "--device auto to spread the model over several GPUs."
        )
    if device_lost(error):
        first = str(error).strip().splitlines()[0].rstrip(".")
        return DeviceLost(
            f"The device failed while {doing} ({first}), and answers nothing more in this process; "
            "start again, and set CUDA_LAUNCH_BLOCKING=1 if it fails at the same place."
        )
    return None
