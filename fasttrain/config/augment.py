"""The augmentations that a plan can name, in the order they are done."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from fasttrain.config.fields import Section, Whole


class Crop(Section):
    """Pad by `padding` pixels on every side, then cut the picture's own size out at random."""

    name: Literal["crop"] = "crop"
    padding: Whole = Field(4, ge=1, le=16)
    mode: Literal["zero", "reflect"] = "zero"


class Flip(Section):
    """Mirror left to right.

    `random`: a fair coin for each picture and epoch. `alternating`: a fixed first side for each
    picture, then the other one every other epoch, so that any two epochs in a row show both
    (Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498, section 3.6).
    """

    name: Literal["flip"] = "flip"
    mode: Literal["random", "alternating"] = "random"


class Cutout(Section):
    """Cover a square of `size` pixels with the training set's mean colour.

    The centre is anywhere in the picture, so the square may hang over its edge (DeVries and
    Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
    arXiv 1708.04552, section 3).
    """

    name: Literal["cutout"] = "cutout"
    size: Whole = Field(8, ge=1, le=64)


Augmentation = Annotated[Crop | Flip | Cutout, Field(discriminator="name")]


def augmentation_names() -> list[str]:
    """The names by which a configuration lists augmentations."""
    members = get_args(get_args(Augmentation)[0])
    return [str(member.model_fields["name"].default) for member in members]
