"""The names that an adapter may import in addition to those of `fedmrn_codec`.

An adapter connects the codec to a training or federation framework; those of this repository are in
`adapters/`. This module, `adapter_api.secagg`, `adapter_api.torch` and `adapter_api.numba` (the last two
import the package that they are named for) are as stable as `fedmrn_codec` itself. All other modules of
`fedmrn_codec` are private.
"""

from ..face.damping import checked_damping
from ..face.decoding import checked_names
from ..face.grids import checked_steps
from ..face.models import Arrays, add, as_update, check_schema, restored, subtract
from ..face.request import check_settings
from ..face.seeds import SeedPolicy
from ..format.frame import Entry
from ..format.limits import DEFAULT_LIMITS, checked_limits
from ..format.mask_spec import masked_values
from ..format.parsing import Expected
from ..format.schema import first_difference
from ..primitives.arguments import U64, check_version, positive_number, unsigned
from ..primitives.grid import BOUNDS as GRID_BOUNDS
from ..primitives.noise import noise_text, parse_noise
from .fit import Fit, Misfit, RoundFit, fit_of
from .secagg import SecAgg
from .server_noise import NoiseSetting, ServerNoise, StatePath

__all__ = [
    "DEFAULT_LIMITS",
    "GRID_BOUNDS",
    "U64",
    "Arrays",
    "Entry",
    "Expected",
    "Fit",
    "Misfit",
    "NoiseSetting",
    "RoundFit",
    "SecAgg",
    "SeedPolicy",
    "ServerNoise",
    "StatePath",
    "add",
    "as_update",
    "check_schema",
    "check_settings",
    "check_version",
    "checked_damping",
    "checked_limits",
    "checked_names",
    "checked_steps",
    "first_difference",
    "fit_of",
    "masked_values",
    "noise_text",
    "parse_noise",
    "positive_number",
    "restored",
    "subtract",
    "unsigned",
]
