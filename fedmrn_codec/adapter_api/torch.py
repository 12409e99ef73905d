"""The codec's operations on torch tensors of any device; imports torch."""

from ..backends.torch import add_into, decode_into, shared, words_tensor

__all__ = ["add_into", "decode_into", "shared", "words_tensor"]
