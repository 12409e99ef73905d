"""Masked random noise for PyTorch: a few lines around a training loop turn its update into a frame.

    psm = fedmrn_torch.PSM(model, seed=7, noise=fm.Uniform(0.01), mask="binary", steps=len(loader))
    for x, y in loader:
        loss(model(x), y).backward(); optimizer.step(); optimizer.zero_grad(); psm.step()
    frame = psm.finish(round=3)

    fedmrn_torch.apply_(model, fm.decode(frame, fedmrn_torch.schema(model)))  # on a server

The method is FedMRN (Li et al., ACM MM 2024); `spec/FORMAT.md` specifies the frame.
"""

from .psm import PSM
from .schema import apply_, schema
from .tensors import add_, decode

__all__ = ["PSM", "add_", "apply_", "decode", "schema"]
