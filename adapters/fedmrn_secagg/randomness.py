"""The randomness of keys and seeds, [X-02], in a module of its own so that test vectors can fix it."""

from __future__ import annotations

import secrets


def draw(size: int) -> bytes:
    """Random bytes of the operating system."""
    return secrets.token_bytes(size)
