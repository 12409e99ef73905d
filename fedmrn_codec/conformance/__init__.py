"""The conformance kit tells whether an implementation of the format gives the right bytes.

The line protocol and the profiles are those of `spec/CONFORMANCE.md`. From the bottom up: `request` says what
may be asked and `target` of whom (`module`, `program`, `reference`); `replay`, `questions` and `properties`
what the answers have to be, `verdict` what a wrong answer breaks, `run` and `report` what came out;
`command` is the shell's verb `fedmrn conformance`.
"""
