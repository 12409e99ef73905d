"""The public functions and classes of `fedmrn_codec`, which re-exports them.

May import every room but `cli`, `cluster` and `conformance`.
"""
