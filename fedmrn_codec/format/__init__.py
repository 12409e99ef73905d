"""The bytes of a frame: schema, header, table of tensors, payloads and their codings (spec 5 to 7).

May import `backends` and `primitives`.
"""
