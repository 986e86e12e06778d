"""How tests ask for a refusal: bad input gets one clear sentence."""

import pytest

from lvlm_study.errors import StudyError


def refuses(message: str, function, *args, **options) -> str:
    """`function` raises StudyError whose one line matches `message`; gives that line."""
    with pytest.raises(StudyError, match=message) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
