"""Records of full-scale runs: JSON files that grow one finished row at a time.

A killed run loses nothing but the row it was working on. The chapters read these files; nobody
types a number from them.
"""

from rac_helpers.records.files import check_writable, write_atomically
from rac_helpers.records.machine import hardware, versions
from rac_helpers.records.record import Record, frame, load

__all__ = [
    "Record",
    "check_writable",
    "frame",
    "hardware",
    "load",
    "versions",
    "write_atomically",
]
