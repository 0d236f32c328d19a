# SPDX-License-Identifier: Apache-2.0
"""Clocks of programs, moved from outside."""
import contextlib
import os


@contextlib.contextmanager
def clock_of(build, shift):
    """Programs that are started within have a clock that this file moves."""
    os.environ.update(LD_PRELOAD=str(build / "tests/tools/libclock_shift.so"), LIFEBOAT_CLOCK_SHIFT=str(shift))
    try:
        yield
    finally:
        del os.environ["LD_PRELOAD"], os.environ["LIFEBOAT_CLOCK_SHIFT"]
