"""What the scripts share that run plait as users do: SCRIPT PLAIT MPIEXEC ..."""

import os
import subprocess
import sys

PLAIT, MPIEXEC = sys.argv[1:3]
NP = [MPIEXEC, "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1", "-np"]
ENVIRONMENT = dict(
    os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1"
)


def run(words, ranks=None, code=0, timeout=150):
    """plait with these words, on so many ranks of mpirun, or alone; it must end with that exit code."""
    launch = [] if ranks is None else [*NP, str(ranks)]
    done = subprocess.run(
        [*launch, PLAIT, *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == code, f"{words} on {ranks}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
