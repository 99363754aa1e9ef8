#!/bin/bash
# One node's ranks: node.sh NODES RANKS_PER_NODE FLAGS_OF_LCO_TRAIN… (SLURM sets SLURM_NODEID; elsewhere set it to 0, 1, … by hand,
# and LCO_NODE_0 and LCO_PORT to the first node's name and a free port there).
set -euo pipefail

nodes=$1 ranks=$2
shift 2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# Asked to stop, ranks save after their rollout. PyTorch's launcher ends them 30 seconds later unless it is told to wait longer;
# how long SLURM waits is its own affair.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-3600}
# DeepSpeed looks for ninja beside this Python.
export PATH="$PWD/.venv/bin:$PATH"
exec python -m torch.distributed.run --nnodes "$nodes" --node-rank "$SLURM_NODEID" --nproc-per-node "$ranks" \
    --master-addr "$LCO_NODE_0" --master-port "$LCO_PORT" --module lco.cli train --engine deepspeed "$@"
