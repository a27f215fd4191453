"""What is known of the data before a run, and which family of universal tables serves them.

That is the shape of the samples, how wide the data are, what the model says, and whether it is guided. A table loses
most on data that are wider than its own, and on answers that are worse.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from ..planners.checks import number

UNKNOWN = 10.0  # the width of data of which nothing is known
PATCH = 14.0  # of patches of photographs, 3 x 16 x 16; larger pictures are whole scenes, which differ less
NARROW = 4.0  # up to this width data are narrow


class Serves(NamedTuple):
    """Up to which width a family serves, up to how many evaluations, for vectors of how many dimensions from and to,
    where 0 are samples of other shapes; guided: whether models with guidance, or those without; eps: whether models
    that say eps, or the others."""

    family: str
    width: float
    most: int = 40
    dimensions: tuple[float, float] = (0, math.inf)
    guided: bool = False
    eps: bool = False


OTHERS, POINTS, VECTORS = (0, 0), (1, 3), (1, math.inf)
# The first that fits is taken. Pictures have one or a few wide directions (brightness), and networks know them. Vectors
# of few dimensions are clouds and curves; those of more lie in groups. By the usual width, narrow vectors have up to 39
# dimensions, "vectors" up to 156.
SERVES = (
    Serves("eps-points", 1.5, 12, POINTS, eps=True),
    Serves("eps-vectors", 5.0, dimensions=VECTORS, eps=True),
    Serves("eps-pictures", 30.0, 12, OTHERS, eps=True),
    Serves("eps-vectors", NARROW, eps=True),
    Serves("eps-guided", 5.0, 10, guided=True, eps=True),
    Serves("eps-guided", NARROW, guided=True, eps=True),
    Serves("points", 1.5, dimensions=POINTS),
    Serves("narrow", 2.5, dimensions=VECTORS),
    Serves("vectors", 5.0, dimensions=VECTORS),
    Serves("pictures", 5.0, 10, OTHERS),
    Serves("pictures", NARROW, 12, OTHERS),
    Serves("narrow", NARROW),
    Serves("groups", 30.0, dimensions=VECTORS),
    Serves("wide", 30.0, dimensions=OTHERS),
    Serves("vast", 100.0),
    Serves("guided", 5.0, 10, guided=True),
    Serves("guided", NARROW, guided=True),
)
ROUNDING = 1 + 1e-9  # of a width that is scaled and scaled back


@dataclass(frozen=True)
class DataHints:
    """What is known of the data and the model.

    width: the standard deviation of the data's widest direction, which says how early the flow bends. By default it
    goes by the size of the samples, `typical_width`, as for images; where that is not known either, it is 10.
    data_std: the factor by which all data is larger than usual (elements of a spread of 1/2 to 1).
    guided: whether the model is.
    dimension: D, if samples are vectors (D,), 1 if they are numbers; else 0.
    eps: whether the model says eps or the score. Its x0 has errors sigma/alpha times as large as those of its answers:
    at the start of a run, hundreds of times.

    Raises ValueError for a width or data_std that is not a positive number.
    """

    width: float | None = None
    data_std: float = 1.0
    guided: bool = False
    dimension: int = 0
    eps: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "data_std"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, number(name, given, 1e-6, 1e6, "a positive number"))

    def suited(self, event: tuple[int, ...], guided: bool, head: str) -> Self:
        """The same for samples of this shape, for a model with guidance or without, and with this head."""
        width = self.width or typical_width(event) * self.data_std or None
        dimension = math.prod(event) if len(event) < 2 else 0
        return replace(self, width=width, guided=guided, dimension=dimension, eps=head in ("eps", "score"))

    @property
    def usual_width(self) -> float:
        """The width of the same data at the usual scale."""
        return self.width / self.data_std if self.width else UNKNOWN

    @property
    def narrow(self) -> bool:
        """Whether the data are, as far as one knows."""
        return self.usual_width <= NARROW * ROUNDING

    @property
    def families(self) -> list[Serves]:
        """Those for such models and samples."""
        model = [entry for entry in SERVES if (entry.guided, entry.eps) == (self.guided, self.eps)]
        return [entry for entry in model if entry.dimensions[0] <= self.dimension <= entry.dimensions[1]]

    def served_by(self, n: int) -> Serves | None:
        """What has tables for this data and n evaluations, if there is anything."""
        fits = (entry for entry in self.families if n <= entry.most and self.usual_width <= entry.width * ROUNDING)
        return next(fits, None)


def typical_width(event: tuple[int, ...]) -> float:
    """The standard deviation along the widest direction, for data with elements of a spread of 1/2 to 1.

    Of images in [-1, 1] it is about their mean brightness, in the norm of the whole image, which varies by some 1/4;
    that of small pictures in colour, as they are patches, by 1/2. Vectors (D,) that fall in some ten groups have
    0.4 sqrt(D).
    """
    norm = math.sqrt(math.prod(event))
    if len(event) < 2:
        return 0.4 * norm
    patch = min(norm / 2, PATCH) if len(event) == 3 and event[0] == 3 else 0.0
    return max(norm / 4, patch)
