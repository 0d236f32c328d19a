# SPDX-License-Identifier: Apache-2.0
"""What a test needs the machine to do before it can judge anything, and what this one did not do just then."""
import time

from lifeboat_site import SiteError

WAIT_S = 180
LOOK_INTERVAL_S = 0.02


class NotProvoked(Exception):
    """The circumstance of a test did not come about: nothing was found to be wrong. The runner tries such a test once more."""


def provoked(came_about, what):
    """Last in a test, behind all that it judges: a wrong result is never hidden by a quiet machine."""
    if not came_about:
        raise NotProvoked(what)


def wait_for(condition, what, deadline_s=WAIT_S):
    """What the condition gives when it gives something. A wait that runs out has judged nothing, either."""
    end = time.monotonic() + deadline_s
    while not (got := condition()):
        if time.monotonic() > end:
            raise SiteError(f"not within {deadline_s} s: {what}")
        time.sleep(LOOK_INTERVAL_S)
    return got
