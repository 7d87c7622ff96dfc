#!/usr/bin/env bash
# readme_example.sh README SOURCE: fails unless the README's first C++ block is that source, word for word.
set -euo pipefail
block=$(awk '/^```cpp$/ { inside = 1; next } /^```/ && inside { exit } inside' "$1")
[[ -n $block ]] || { echo "$1 has no block that starts with \`\`\`cpp"; exit 1; }
diff --unified --label "$1" --label "$2" <(echo "$block") "$2" || {
  echo "the README's example is not the program that the tests build and run; make them the same"
  exit 1
}
