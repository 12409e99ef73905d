"""Write `fedmrn_table.h` from the table of FORMAT.md 3.4.

python make_table.py ../../tables/gaussian.bin > fedmrn_table.h
"""

import hashlib
import struct
import sys
from pathlib import Path

SHA256 = "dd66b5cfd76836da9b554bd89e3ccd03b8e70a5a015b51e5d4ca9a2b4963deb9"
PER_LINE = 12


def main() -> None:
    data = Path(sys.argv[1]).read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"{sys.argv[1]} is not the table of FORMAT.md 3.4")
    entries = struct.unpack("<2049I", data)
    print("/* The table T of FORMAT.md 3.4, written by make_table.py; included by fedmrn.h. */")
    print("static const uint32_t fedmrn__gaussian[2049] = {")
    for at in range(0, len(entries), PER_LINE):
        print("    " + " ".join(f"{entry}," for entry in entries[at : at + PER_LINE]))
    print("};")


if __name__ == "__main__":
    main()
