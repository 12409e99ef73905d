"""A fast simulation of federated rounds: the sampled clients are one batch dimension, masks come from torch.

It serves searches over scales, rules and mask kinds, where thousands of rounds are needed and real frames are
not. No byte is encoded: the bits of a mask are counted as the entropy that coding 1 of the format approaches.
What is chosen here is confirmed through real frames by `fedmrn train`.

    python -m reference_fl.batched --tasks mlp-iid mlp-labels --methods fedavg eden binary-uniform:std=1 \
        --seeds 0 1 --out results.jsonl
"""

from .loop import Settings, run
from .rules import Observation, Rule
from .tasks import Task, names, task

__all__ = ["Observation", "Rule", "Settings", "Task", "names", "run", "task"]
