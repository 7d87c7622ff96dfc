#!/usr/bin/env bash
# Set-up, build and every test; see --help.
set -euo pipefail
usage() {
  cat <<'HELP'
usage: bash tests/run.sh [--sanitize] [--long]
Installs missing packages (apt), builds everything into build/ and runs the tests.
  --sanitize  the whole suite twice more, at 4 ranks: under UBSan (build-undefined/), TSan (build-thread/)
  --long      also the tests labelled `long` (fuzzing, large sweeps); needs clang
Exit code: 0 if no test failed, 1 if one did, 2 for a usage error.
HELP
}
sanitize=no long=OFF
for argument in "$@"; do
  case $argument in
    --sanitize) sanitize=yes ;;
    --long) long=ON ;;
    -h | --help) usage; exit 0 ;;
    *) echo "run.sh: unknown argument '$argument'; see --help" >&2; exit 2 ;;
  esac
done
source "$(dirname "${BASH_SOURCE[0]}")/../launch/setup.sh"
start=$SECONDS
packages=("${plait_packages[@]}")
# libFuzzer comes with the runtime, which `clang` merely recommends.
[[ $long == OFF ]] || packages+=(clang libclang-rt-dev)
[[ $sanitize == no ]] || packages+=(libomp-dev)
install_packages "${packages[@]}"
python_environment

labels=(--label-exclude '^long$')
[[ $long == OFF ]] || labels=()
summary=()
failed=0

# summarise PRESET JUNIT: appends the suite's counts, and the names of what was skipped or failed.
summarise() {
  local preset=$1
  summary+=("$(python3 - "$preset" "$2" <<'PYTHON'
import sys, xml.etree.ElementTree
preset, path = sys.argv[1:]
cases = list(xml.etree.ElementTree.parse(path).getroot().iter("testcase"))
named = {status: [case.get("name") for case in cases if case.get("status") == status]
         for status in ("fail", "notrun", "disabled")}
print(f"{preset}: {len(cases)} tests, {len(named['fail'])} failed, {len(named['notrun'])} skipped")
for word, status in (("failed", "fail"), ("skipped", "notrun"), ("disabled", "disabled")):
    for name in named[status]:
        print(f"  {word}: {name}")
PYTHON
  )")
}

# run_suite PRESET BUILD_FOLDER [CMAKE_ARGUMENT...]: configures, builds and runs one suite.
run_suite() {
  local preset=$1 folder=$2
  shift 2
  mkdir -p "$folder"
  rm -f "$folder/ctest.log" "$folder/junit.xml"  # of an earlier run
  echo "run.sh: building preset $preset"
  cmake --preset "$preset" -DPLAIT_PYTHON="$plait_python" -DPLAIT_FUZZ="$long" "$@" >"$folder/build.log" 2>&1 &&
    cmake --build "$folder" --parallel >>"$folder/build.log" 2>&1 || {
    tail -n 60 "$folder/build.log"
    summary+=("$preset: the build failed, see $folder/build.log")
    failed=1
    return
  }
  # Kernels that compile but lose most of their speed: wgmma serialised, setmaxnreg ignored.
  if grep -E '\(C75(08|1[0-8]|20)\)' "$folder/build.log"; then
    summary+=("$preset: a kernel's wgmma or setmaxnreg was not taken as written, see $folder/build.log")
    failed=1
  fi
  ctest --test-dir "$folder" --output-on-failure -j2 "${labels[@]}" --output-junit junit.xml 2>&1 |
    tee "$folder/ctest.log" || failed=1
  summarise "$preset" "$folder/junit.xml"
}

run_suite release build
if [[ $sanitize == yes ]]; then
  run_suite undefined build-undefined -DPLAIT_TEST_RANKS=4
  # MPI is not instrumented: TSan sees its accesses (through memcpy and locks) but not what orders them, so it is
  # to leave those out. Nor is libgomp, so LLVM's OpenMP takes its place where there is one: it comes with
  # Archer, which tells TSan. Else ranks fold with one thread.
  export OMP_NUM_THREADS=1 TSAN_OPTIONS=ignore_noninstrumented_modules=1
  archers=(/usr/lib/llvm-*/lib/libarcher.so)
  openmp=()
  if [[ -f ${archers[-1]} ]]; then
    export OMP_NUM_THREADS=2 OMP_TOOL_LIBRARIES=${archers[-1]}
    openmp=(-DOpenMP_gomp_LIBRARY="${archers[-1]%/*}/libomp.so")
  fi
  run_suite thread build-thread -DPLAIT_TEST_RANKS=4 "${openmp[@]}"
fi

echo
printf '%s\n' "${summary[@]}"
echo "run.sh: $((SECONDS - start)) seconds, $([[ $failed -eq 0 ]] && echo "all passed" || echo "FAILED")"
# ctest's own closing lines, of each suite, come last: they are what a reader of a log's end looks for.
for folder in build build-undefined build-thread; do
  [[ $folder == build || $sanitize == yes ]] && [[ -f $folder/ctest.log ]] || continue
  sed -n '/tests passed,/,$p' "$folder/ctest.log"
done
exit "$failed"
