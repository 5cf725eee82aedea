#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check_library.sh LIBRARY SYMBOLS: exported symbols are those listed, and no library is needed
# beyond the few that libnibble promises.
set -eu
library=$1
listed=$2
exported=$(nm -D --defined-only "$library" | awk '{print $3}' | LC_ALL=C sort)
if [ "$exported" != "$(LC_ALL=C sort "$listed")" ]; then
  echo "exported symbols differ from $listed:"
  echo "$exported" | diff "$listed" - || true
  exit 1
fi
for needed in $(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
  case $needed in
    libtbb.so.* | libhwloc.so.* | libstdc++.so.* | libm.so.* | libgcc_s.so.* | libc.so.* | ld-linux*) ;;
    libasan.so.* | libubsan.so.* | libtsan.so.*) ;; # sanitizer builds
    *) echo "libnibble needs $needed"; exit 1 ;;
  esac
done
