# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# How this machine reaches Debian, so that a root made here reaches it too.
# Sourced by bash; nothing of it is ever written into the repository.

# Debian's own sources among those that apt has, one a line. None when the
# lists were never fetched: mmdebstrap's default is right then.
host_debian_sources()
{
        # apt's variables, expanded by apt and not by the shell.
        # shellcheck disable=SC2016
        apt-get indextargets --format '$(ORIGIN) deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
                'Created-By: Packages' 2>/dev/null | sed -n 's/^Debian //p' | grep -E '^deb [^ ]+ bookworm' | sort -u || true
}

# Proxies, retries and date checks as configured here, in apt.conf's language.
host_apt_options()
{
        apt-config dump | grep -E '^Acquire::(http|https|ftp|Retries|ForceIPv|Check-|Max-)' | grep -v ' "";$' || true
}
