#!/usr/bin/env bash
# Installs the systems that drave is compared with, as Debian packages; they are not started as services.
set -euo pipefail
[ "$(id -u)" -eq 0 ] || { echo "run it as root" >&2; exit 1; }
# What the packages' scripts ask before they start a service: never.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
  trap 'rm -f $policy' EXIT
fi
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends etcd-server redis-server
