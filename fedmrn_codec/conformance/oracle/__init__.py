"""The format in plain integers: slow and simple, and independent of the rest of the package.

It follows `spec/FORMAT.md` section by section; the vectors in `spec/vectors` are made with it. Floats are bit
patterns and exact fractions, rounded only by `round_float`. Floating-point arithmetic is used in 8.2 alone,
where the specification demands IEEE doubles, which Python's floats are.
"""

# ruff: noqa: F403 - the oracle's names are those of all its modules

from .checks import *
from .codings import *
from .elements import *
from .frame import *
from .grids import *
from .masks import *
from .noise import *
from .schema import *
from .sums import *
from .tallies import *
