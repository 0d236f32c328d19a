# SPDX-License-Identifier: Apache-2.0
"""What a test needs the machine to do before it can judge anything, and what this one did not do just then."""


class NotProvoked(Exception):
    """The circumstance of a test did not come about: nothing was found to be wrong. The runner tries such a test once more."""


def provoked(came_about, what):
    """Last in a test, behind all that it judges: a wrong result is never hidden by a quiet machine."""
    if not came_about:
        raise NotProvoked(what)
