"""Run a job with secure aggregation in NVFlare's simulator: FOLDER. One of its three clients drops out."""

import sys
from pathlib import Path

from federation_parts import Framer, Persistor
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.job_config.api import FedJob

import fedmrn_nvflare
from fedmrn_nvflare import SecAgg

TIMEOUT = 12
"""Seconds that each exchange waits for the client that hangs."""


def main(folder):
    """Three rounds of FedAvg."""
    job = FedJob("secure", min_clients=3)
    job.to_server(FedAvg(num_clients=3, num_rounds=3, task_check_period=0.1))
    job.to_server(Persistor(folder), id="persistor")
    job.to_clients(Framer(folder), tasks=["train"])
    fedmrn_nvflare.attach(job, secure=SecAgg(threshold=2), timeout=TIMEOUT)
    return job.simulator_run(str(Path(folder) / "workspace"), n_clients=3, threads=3)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
