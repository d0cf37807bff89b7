"""Keeping secrets out of everything that is written or shown.

fasttrain asks for no secret, but people put keys on command lines, into configurations and into
the environment, and errors of other libraries repeat what they were given.
"""

from __future__ import annotations

import os
import re

_MASK = "***"
_SHORTEST = 12  # characters: a shorter value is a word that may stand anywhere
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
# W&B's keys, old and new (in a path it is a checksum); Hugging Face's; what follows a name such
# as `api_key=`.
_SECRET = re.compile(
    r"(?<![0-9A-Za-z/])(?:local-)?[0-9a-f]{40}(?![0-9A-Za-z])"
    r"|wandb_v\d_[0-9A-Za-z_-]{20,}"
    r"|hf_[0-9A-Za-z]{30,}"
    r"|(?<=key=)[^\s'\",;]{12,}|(?<=token=)[^\s'\",;]{12,}|(?<=password=)[^\s'\",;]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Mask what looks like a key, and the values of environment variables that hold secrets."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, _MASK)
    return _SECRET.sub(_MASK, text)
