#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The test's remote hand: runs the posted text as a shell command and answers
# with what it printed (standard error too), then a line with its exit code.
# Only in images built with --control, for guests behind QEMU's user network.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root
printf 'Content-Type: application/octet-stream\r\n\r\n'
head -c "$CONTENT_LENGTH" >"/run/control.$$"
cd /root || exit 1
setsid sh "/run/control.$$" </dev/null 2>&1
code=$?
rm -f "/run/control.$$"
printf '\nexit %s\n' "$code"
