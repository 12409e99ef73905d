"""The conformance kit tests whether an implementation of the format produces the right bytes.

`spec/CONFORMANCE.md` describes the line protocol and the profiles. From the bottom up: `request` defines the
requests, and `target` the implementations that answer them (`module`, `program`, `reference`); `protocol`,
`replay`, `extras`, `large`, `many`, `state` and `properties` are the checks; `verdict` names the requirement
that a wrong answer violates; `run` and `report` run the checks and print the results. `annotated` shows bytes
with their fields (`fields`, `values`) and the first check that fails (`inputs`, `faults`). The shell's verb
`fedmrn conformance` is in `fedmrn_codec.cli`, which this package does not import.
"""
