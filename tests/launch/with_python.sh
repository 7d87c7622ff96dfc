#!/bin/sh
# with_python.sh SCRIPT ARGUMENTS... runs a script with the first interpreter that has numpy and safetensors.
# PLAIT_PYTHON lists the candidates, colon-separated. Exit code 77, which the tests report as skipped, if none has.
IFS=:
for python in $PLAIT_PYTHON; do
  if "$python" -c 'import numpy, safetensors' 2>/dev/null; then
    exec "$python" "$@"
  fi
done
echo "SKIPPED: no Python with numpy and safetensors among $PLAIT_PYTHON (set the CMake variable PLAIT_PYTHON)"
exit 77
