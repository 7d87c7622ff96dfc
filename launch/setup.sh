# What launch/quickstart.sh and tests/run.sh share: packages, the Python environment, how mpirun is started.
# To be sourced by bash. Works from any folder; leaves the caller in the top folder of the repository.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

plait_packages=(g++ cmake ninja-build libopenmpi-dev openmpi-bin libboost-program-options-dev
  nlohmann-json3-dev libfmt-dev libxxhash-dev libgtest-dev python3 python3-venv iproute2)
plait_python_packages=(numpy safetensors ml_dtypes)

# missing_packages PACKAGE...: those that are not installed, one per line.
missing_packages() {
  local package
  for package in "$@"; do
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
      echo "$package"
  done
}

# install_packages PACKAGE...: installs what is missing; without root, says how and exits 1.
install_packages() {
  local missing
  if ! command -v dpkg-query >/dev/null; then
    echo "setup: this is not Debian or Ubuntu; assuming that these are installed: $*"
    return
  fi
  mapfile -t missing < <(missing_packages "$@")
  [[ ${#missing[@]} -gt 0 ]] || return 0
  if [[ $EUID -ne 0 ]]; then
    echo "setup: these packages are missing; install them with this command, then start again:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# python_environment: sets `plait_python` to an interpreter that has the packages that some tests read and
# write tensor files with, or to nothing.
python_environment() {
  local venv=$PWD/build/venv imports
  imports=$(IFS=,; echo "${plait_python_packages[*]}")
  if ! "$venv/bin/python" -c "import $imports" 2>/dev/null; then
    mkdir -p build
    { python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet "${plait_python_packages[@]}"; } \
      >build/venv.log 2>&1 || true
  fi
  plait_python=$venv/bin/python
  if ! "$plait_python" -c "import $imports" 2>/dev/null; then
    plait_python=
    echo "setup: no Python environment with ${plait_python_packages[*]} (see build/venv.log):" \
      "the tests that need it are skipped"
  fi
}

# mpirun_command RANKS: sets `plait_mpirun` to the words that start RANKS ranks on this machine.
mpirun_command() {
  local ranks=$1 cores
  # mpirun counts cores, not hardware threads, as its slots; nproc knows the limits of a container.
  cores=$(lscpu --parse=Core,Socket | grep -v '^#' | sort -u | wc -l)
  cores=$((cores < $(nproc) ? cores : $(nproc)))
  plait_mpirun=(mpirun -np "$ranks")
  # Ranks that share a core must yield it while they wait, and must not be bound to it.
  if [[ $ranks -gt $cores ]]; then
    plait_mpirun+=(--oversubscribe --bind-to none --mca mpi_yield_when_idle 1)
  fi
}

# Open MPI refuses to run as root unless it is told twice; in a container root is the usual user.
if [[ $EUID -eq 0 ]]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
