"""The augmentations that a plan can name, in the order they are done.

A picture is changed in five stages: tone, geometry, colour, cut-out, normalisation; then, inside
the training step, it is mixed with another one. What each augmentation belongs to is said below;
`data.augment` says what each stage means, `data.plan` draws its random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fasttrain.config.fields import Real, Section, Whole, Words, sections_in, tag_of


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("a range is written [lowest, highest]")
    return value


Positive = Annotated[Real, Field(gt=0)]
Strength = Annotated[Real, Field(ge=0, le=1)]
ShareRange = Annotated[
    tuple[Annotated[Real, Field(gt=0, le=1)], Annotated[Real, Field(gt=0, le=1)]],
    AfterValidator(_ascending),
    Words("[lowest, highest], {}"),
]
RatioRange = Annotated[
    tuple[Positive, Positive], AfterValidator(_ascending), Words("[lowest, highest], {}")
]


class TrivialAugment(Section):
    """One operation for each picture, drawn evenly from fourteen, at a strength drawn evenly.

    The operations and strengths are those of the wide space (Müller and Hutter, "TrivialAugment:
    Tuning-free Yet State-of-the-Art Data Augmentation", arXiv 2103.10158, section 3), as
    torchvision's `TrivialAugmentWide` has them. It comes first, as in the authors' own CIFAR-10
    training. `data.trivial` says to which stage each operation belongs.
    """

    name: Literal["trivial_augment"] = "trivial_augment"


class Crop(Section):
    """Pad every side, then cut the picture's own size out at random.

    Geometry, in whole pixels. Beside geometry that is not, `reflect` puts the mirrored pixels
    around the picture before any of it: what TrivialAugment and rotations bring in is then black
    only beyond them.
    """

    name: Literal["crop"] = "crop"
    padding: Whole = Field(4, ge=1, le=16)
    """Pixels that are added on every side."""
    mode: Literal["zero", "reflect"] = "zero"
    """What they show: `zero` is black, `reflect` the picture mirrored, if larger than `padding`."""


class ResizedCrop(Section):
    """Cut out a box of random area and shape, and enlarge it to the picture's size.

    Szegedy et al., "Going Deeper with Convolutions", arXiv 1409.4842, section 6. Geometry.
    """

    name: Literal["resized_crop"] = "resized_crop"
    scale: ShareRange = (0.8, 1.0)
    """The box's area as a share of the picture's, drawn evenly."""
    ratio: RatioRange = (3 / 4, 4 / 3)
    """The box's width over its height, 1 being the picture's own; drawn evenly on a logarithmic
    scale from those in which the area fits."""


class Rotation(Section):
    """Turn about the centre by a random angle; what comes in is black, or as `crop` pads.

    Geometry.
    """

    name: Literal["rotation"] = "rotation"
    degrees: Real = Field(15.0, gt=0, le=180)
    """The largest angle, either way."""


class Flip(Section):
    """Mirror left to right.

    Geometry, in whole pixels. `alternating` is that of Jordan, "94 % on CIFAR-10 in 3.29 seconds
    on a single GPU", arXiv 2404.00498, section 3.6.
    """

    name: Literal["flip"] = "flip"
    mode: Literal["random", "alternating"] = "random"
    """`random`: a fair coin for each picture and epoch. `alternating`: a fixed first side for each
    picture, then the other one every other epoch, so that any two epochs in a row show both."""


class VerticalFlip(Section):
    """Mirror top to bottom by a fair coin.

    Geometry, in whole pixels.
    """

    name: Literal["vertical_flip"] = "vertical_flip"


class ColorJitter(Section):
    """Change brightness, contrast, saturation and hue, in this order, by random amounts.

    Colour.
    """

    name: Literal["color_jitter"] = "color_jitter"
    brightness: Strength = 0.2
    """The factor of brightness is drawn evenly from 1 less this to 1 more this."""
    contrast: Strength = 0.2
    """The same for contrast."""
    saturation: Strength = 0.2
    """The same for saturation."""
    hue: Real = Field(0.0, ge=0, le=0.5)
    """The largest turn of the hue, either way, as a share of the full circle of colours."""


class Cutout(Section):
    """Cover a square with the training set's mean colour.

    The centre is anywhere in the picture, so the square may hang over its edge (DeVries and
    Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
    arXiv 1708.04552, section 3).
    """

    name: Literal["cutout"] = "cutout"
    size: Whole = Field(8, ge=1, le=64)
    """Side of the square, in pixels."""


class MixUp(Section):
    """Blend two pictures and their labels.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", arXiv 1710.09412, section 2; an
    `alpha` of 1 is what they train CIFAR-10 with (section 3.2).
    """

    name: Literal["mixup"] = "mixup"
    alpha: Real = Field(1.0, ge=0.001, le=10)
    """The picture's weight is drawn from Beta(`alpha`, `alpha`): 1 draws evenly, less favours
    weights near 0 and 1."""
    probability: Real = Field(1.0, gt=0, le=1)
    """Share of the pictures that are changed; of those that `cutmix` leaves alone, if it is on."""


class CutMix(Section):
    """Put a box of another picture over this one; the labels are weighted by area.

    Yun et al., "CutMix", arXiv 1905.04899, section 3.1.
    """

    name: Literal["cutmix"] = "cutmix"
    alpha: Real = Field(1.0, ge=0.001, le=10)
    """The box's share of the picture is drawn from Beta(`alpha`, `alpha`), less what hangs over
    its edge: 1 draws evenly, less favours very small and very large boxes."""
    probability: Real = Field(0.5, gt=0, le=1)
    """Share of the pictures that are changed; the others are left to `mixup`, if it is on."""


Augmentation = Annotated[
    TrivialAugment
    | Crop
    | ResizedCrop
    | Rotation
    | Flip
    | VerticalFlip
    | ColorJitter
    | Cutout
    | MixUp
    | CutMix,
    Field(discriminator="name"),
]


def mixes(augment: Sequence[Augmentation]) -> bool:
    """Whether a recipe mixes pictures, which it does in pairs."""
    return any(isinstance(entry, MixUp | CutMix) for entry in augment)


def augmentation_names() -> list[str]:
    """The names by which a configuration lists augmentations."""
    return [tag_of(section) for section in sections_in(Augmentation)]
