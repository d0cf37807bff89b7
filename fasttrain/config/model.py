"""The networks: one section for each family."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fasttrain.config.fields import Section, Whole


class Model(Section):
    """A plain convolutional network: convolution, norm, ReLU and pooling for each width."""

    family: Literal["cnn"] = "cnn"
    widths: tuple[Annotated[Whole, Field(ge=1)], ...] = Field((64, 128, 256), min_length=1)
    norm: Literal["none", "batch"] = "none"
