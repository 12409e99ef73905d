"""`python -m fedmrn_codec.cli`, for where the script `fedmrn` is not on the path."""

from . import main

main()
