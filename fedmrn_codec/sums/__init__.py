"""What an aggregator holds: exact integer sums, their means, and their bytes (spec 8).

May import `format`, `backends` and `primitives`.
"""
