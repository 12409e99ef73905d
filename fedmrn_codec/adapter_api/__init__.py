"""What adapter authors may import beside `fedmrn_codec` itself.

An adapter carries frames through a framework; `adapters/` holds those of this project. The names of this
package, with `adapter_api.torch` and `adapter_api.numba`, which import their framework, are as stable as
those of `fedmrn_codec`. All other modules of `fedmrn_codec` are private.
"""

from ..face.decoding import wanted_names
from ..face.models import Arrays, add, as_update, check_schema, restored, subtract
from ..face.request import check_settings
from ..face.seeds import SeedPolicy
from ..format.frame import Entry
from ..format.limits import DEFAULT_LIMITS
from ..format.mask_spec import masked_values
from ..format.parsing import Expected
from ..format.schema import first_difference
from ..primitives.arguments import U64, unsigned
from ..primitives.noise import noise_text, parse_noise

__all__ = [
    "DEFAULT_LIMITS",
    "U64",
    "Arrays",
    "Entry",
    "Expected",
    "SeedPolicy",
    "add",
    "as_update",
    "check_schema",
    "check_settings",
    "first_difference",
    "masked_values",
    "noise_text",
    "parse_noise",
    "restored",
    "subtract",
    "unsigned",
    "wanted_names",
]
