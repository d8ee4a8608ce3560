#!/bin/sh
# What the Lambda Web Adapter starts in place of Python's own runtime, which cannot stream.
# Packages are found as that runtime finds them: the function, its layers, then what Lambda brings.
set -eu
export PYTHONPATH="$LAMBDA_TASK_ROOT:/opt/python:$LAMBDA_RUNTIME_DIR${PYTHONPATH:+:$PYTHONPATH}"
# -u: metrics are lines on standard output, and must be out before the environment is frozen.
exec python3 -u -m uvicorn --factory app:create --host 127.0.0.1 --port "$AWS_LWA_PORT" \
    --lifespan off --log-level warning --no-access-log --no-server-header
