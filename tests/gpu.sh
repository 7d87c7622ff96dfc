#!/usr/bin/env bash
# Everything that a machine with a GPU is asked for; see --help.
set -uo pipefail
usage() {
  cat <<'HELP'
usage: bash tests/gpu.sh [--build] [--tests] [--sanitize] [--bench] [--profile] [--scaling] [--out DIR]
Without a stage: all of them. Builds into build-gpu/ and, for racecheck, build-gpu-race/; an optional folder .deps/usr is searched for packages first.
  --build     configure and build, CUDA on
  --tests     ctest -L gpu
  --sanitize  compute-sanitizer memcheck and racecheck on the folds of small shapes (filter: PLAIT_SANITIZE_FILTER)
  --bench     bench/gpu/run.py, to DIR/gpu.md
  --profile   bench/gpu/profile.sh, to DIR/profile.md
  --scaling   bench/gpu/scaling.py over all GPUs of the host, to DIR/scaling.md; nothing to do with one GPU
  --out DIR   logs and results (default build-gpu/report)
Exit code: 0 if all passed, 1 if a stage failed, 2 for a usage error or without a GPU.
HELP
}
stages=() out=build-gpu/report
while [[ $# -gt 0 ]]; do
  case $1 in
    --build | --tests | --sanitize | --bench | --profile | --scaling) stages+=("${1#--}") ;;
    --out) out=${2:?gpu.sh: --out needs a folder}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "gpu.sh: unknown argument '$1'; see --help" >&2; exit 2 ;;
  esac
  shift
done
[[ ${#stages[@]} -gt 0 ]] || stages=(build tests sanitize bench profile scaling)
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
nvidia-smi --list-gpus 2>/dev/null | grep -q '^GPU' || { echo "gpu.sh: no GPU here (nvidia-smi lists none)" >&2; exit 2; }
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
[[ $EUID -ne 0 ]] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# Ranks of this host alone, several of them on a GPU.
export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin NCCL_SOCKET_IFNAME=lo NCCL_NVLS_ENABLE=0 OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}

# shellcheck disable=SC2317  # stages are called by name
build() {
  local prefix=()
  [[ ! -d .deps/usr ]] || prefix=("-DCMAKE_PREFIX_PATH=$PWD/.deps/usr")
  configure() { cmake -S . -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPLAIT_CUDA=ON -DPLAIT_WERROR=OFF "${prefix[@]}" "${@:2}"; }
  configure build-gpu && cmake --build build-gpu --parallel &&
    configure build-gpu-race -DPLAIT_RACECHECK=ON && cmake --build build-gpu-race --parallel --target cuda_fold_test
}
# shellcheck disable=SC2317
tests() { OMP_NUM_THREADS=4 ctest --test-dir build-gpu -L gpu --no-tests=error --output-on-failure; }
# shellcheck disable=SC2317
sanitize() {
  local tool status=0
  declare -A build_of=([memcheck]=build-gpu [racecheck]=build-gpu-race)
  for tool in "${!build_of[@]}"; do
    timeout 300 compute-sanitizer --tool "$tool" --error-exitcode 1 "${build_of[$tool]}/tests/cuda_fold_test" \
      --gtest_filter="${PLAIT_SANITIZE_FILTER:-*CudaFold.HeadsInGroupsAndBatches*:*CudaFold.WindowsAndDocuments*:*CudaFold.CarriedFoldsInAnyOrderEqualOneFold*:*CudaFold.FewTilesAreSplitByKeys*}" || status=1
  done
  return "$status"
}
# shellcheck disable=SC2317
bench() { python3 bench/gpu/run.py --out "$out/gpu.md"; }
# shellcheck disable=SC2317
profile() { bash bench/gpu/profile.sh >"$out/profile.md"; }
# shellcheck disable=SC2317
scaling() {
  local gpus
  gpus=$(nvidia-smi --list-gpus | grep -c '^GPU')
  [[ $gpus -gt 1 ]] || { echo "one GPU: nothing to scale over"; return 0; }
  python3 bench/gpu/scaling.py --ranks "$gpus" --out "$out" --commit "${PLAIT_COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}"
}

failed=0 summary=()
for stage in "${stages[@]}"; do
  start=$SECONDS
  if "$stage" > >(tee "$out/$stage.log") 2>&1; then word=passed; else word=FAILED failed=1; fi
  summary+=("$stage: $word, $((SECONDS - start)) s, log $out/$stage.log")
  [[ $stage != build || $word == passed ]] || break
done
printf 'gpu.sh: %s\n' "${summary[@]}"
exit "$failed"
