#!/usr/bin/env bash
# Copies the development files of fmt, nlohmann_json, xxhash and Boost.Program_options that this machine has installed (Debian, Ubuntu)
# into .deps/usr, for a build on a machine of the same family that lacks them and can install nothing:
#   cmake -DCMAKE_PREFIX_PATH=$PWD/.deps/usr …
# usage: bash launch/carry_headers.sh [FOLDER]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-.deps}
rm -rf "${folder:?}/usr"
for package in libfmt-dev nlohmann-json3-dev libxxhash-dev; do
  dpkg-query --listfiles "$package" | grep -E '^/usr/(include|lib|share/cmake)/' | while read -r file; do
    [[ ! -d $file ]] || continue
    mkdir -p "$folder$(dirname "$file")"
    cp --dereference "$file" "$folder$file"
  done
done
# Of Boost's headers, which are many, those that Program_options needs.
mapfile -t boost < <(g++ -M -x c++ - <<<'#include <boost/program_options.hpp>' | tr ' \\' '\n\n' | grep '^/usr/include/boost/'
  ls /usr/lib/*/libboost_program_options.* /usr/lib/*/cmake/{Boost-,boost_headers-,boost_program_options-}*/* /usr/lib/*/cmake/BoostDetectToolset*)
for file in "${boost[@]}"; do
  mkdir -p "$folder$(dirname "$file")"
  cp --dereference "$file" "$folder$file"
done
# The CMake files name the library by its full version; programs look it up by its major one. Copies, not links,
# which not every way of copying a folder keeps.
for library in /usr/lib/*/libfmt.so.*; do cp --dereference "$library" "$folder$library"; done
du --summarize --human-readable "$folder"
