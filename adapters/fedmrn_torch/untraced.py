"""What `torch.compile` must not trace: the draws of masks, and the counters of a PSM.

A graph that it compiles breaks at each of these calls. The module is imported while it compiles, since
`torch.compiler.disable` imports the compiler, which takes longer than importing torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import masking

straight_through: Callable[[Tensor, masking.MaskedNoise], Tensor] = torch.compiler.disable(
    masking.straight_through
)
begin = torch.compiler.disable(masking.Sampler.begin)
end = torch.compiler.disable(masking.Sampler.end)
