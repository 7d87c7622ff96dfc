#!/usr/bin/env bash
# Installs what is missing, builds plait, and runs one attention over the committed input on 4 ranks.
set -euo pipefail
case ${1-} in
  "") ;;
  -h | --help)
    echo "usage: bash launch/quickstart.sh"
    echo "Installs missing packages (apt), builds build/bin/plait, and runs one causal attention on 4 ranks,"
    echo "checked against an fp64 oracle. Output, report and trace go to build/quickstart/."
    exit 0 ;;
  *) echo "quickstart: unknown argument '$1'; see --help" >&2; exit 2 ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

install_packages "${plait_packages[@]}"
echo "quickstart: building (the first time takes minutes; log in build/quickstart/build.log)"
mkdir -p build/quickstart
build() {
  cmake --preset release && cmake --build build --target plait --parallel
}
if ! build >build/quickstart/build.log 2>&1; then
  tail -n 40 build/quickstart/build.log >&2
  echo "quickstart: the build failed; its whole log is build/quickstart/build.log" >&2
  exit 1
fi

mpirun_command 4
folder=build/quickstart
command=("${plait_mpirun[@]}" build/bin/plait attend --input tests/data/llama_2048.safetensors --causal
  --check --output "$folder/out.safetensors" --json "$folder/report.json" --trace "$folder/trace.json")
echo "quickstart: ${command[*]}"
"${command[@]}"
echo "quickstart: wrote out.safetensors, report.json and trace.json (for ui.perfetto.dev) in $folder/"
