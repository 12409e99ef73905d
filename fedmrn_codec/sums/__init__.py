"""Integer sums of many frames, their means, and partial sums as bytes (spec 8).

May import `format`, `backends` and `primitives`.
"""
