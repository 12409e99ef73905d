"""The public functions and classes, which `fedmrn_codec` exports: encode, decode, aggregate, request.

May import every room but `cli`, `cluster` and `conformance`.
"""
