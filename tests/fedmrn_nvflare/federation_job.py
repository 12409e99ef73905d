"""Run a job of three clients, one of them bad, in NVFlare's simulator: FOLDER and OUTPUT."""

import sys
from pathlib import Path

from federation_parts import Persistor, Saboteur, Spy, Trainer
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType

import fedmrn_nvflare


def main(folder, output):
    """Three rounds of FedAvg; with the exact mean if the output is FRAME."""
    job = FedJob("federation", min_clients=3)
    exact = fedmrn_nvflare.ExactMean() if output == "FRAME" else None
    job.to_server(FedAvg(num_clients=3, num_rounds=3, aggregator=exact, task_check_period=0.1))
    job.to_server(Persistor(folder), id="persistor")
    job.to_server(Spy(folder), filter_type=FilterType.TASK_RESULT, tasks=["train"])
    job.to_clients(Trainer(), tasks=["train"])
    fedmrn_nvflare.attach(job, "uniform:0.01", mask="signed", output=output)
    job.to_clients(Saboteur(), filter_type=FilterType.TASK_RESULT, tasks=["train"])
    return job.simulator_run(str(Path(folder) / "workspace"), n_clients=3, threads=3)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
