"""Adding the filters to a recipe or a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvflare.app_common.workflows.base_model_controller import BaseModelController
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather
from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType
from nvflare.recipe.spec import Recipe

import fedmrn_codec as fm

from .client import ToFrame
from .downlink import FromGrid, ToGrid
from .server import FromFrame

PACKAGES = ("fedmrn_codec", "fedmrn_nvflare")
DOWNLINKS = ("grid", "raw")
"""The values of the option `downlink` of `attach`."""


def attach(
    target: Recipe | FedJob,
    noise: fm.Noise | str | None = None,
    tasks: Sequence[str] = ("train",),
    *,
    downlink: str = "grid",
    **settings: Any,
) -> None:
    """Make the clients of a recipe or a job send frames, and the server too.

    Adds `ToFrame` to all clients and `FromFrame` to the server; and, for the way of the model to the clients,
    `ToGrid` to the server and `FromGrid` to all clients. If a FedAvg or ScatterAndGather has no value
    for `ignore_result_error`, it is set to True, so that the job continues without a refused result. The job
    imports this library, which must be installed on the server and on every client; NVFlare does not copy
    its files into the job.

    Call it after adding the workflow and, in a job with an app for each client, after adding the clients.

    Parameters
    ----------
    target : nvflare.recipe.spec.Recipe or nvflare.job_config.api.FedJob
    noise : fedmrn_codec.Noise or str, optional
        As in `FromFrame`: by default a rule sets it.
    tasks : sequence of str
        Names of the tasks whose results are frames.
    downlink : {"grid", "raw"}
        "grid": clients get the model rounded, as frames of what has changed since the version that they hold.
        "raw": they get the workflow's arrays.
    **settings
        Of `FromFrame`: `mask`, `output`, `masked`, `leave_out`, `seed`, `max_weight`, `coding`,
        `dense_coding`, `bits`, `state`, `limits`.

    Raises
    ------
    fedmrn_codec.ArgumentError
        A setting is out of range, or the target is neither a recipe nor a job.
    """
    if not isinstance(target, Recipe | FedJob):
        raise fm.ArgumentError("target", "a Recipe or a FedJob", type(target).__name__)
    if downlink not in DOWNLINKS:
        raise fm.ArgumentError("downlink", f"one of {', '.join(DOWNLINKS)}", repr(downlink))
    decoder, names = FromFrame(noise, **settings), list(tasks)
    if isinstance(target, Recipe):
        target.add_client_output_filter(ToFrame(), tasks=names)
        target.add_server_input_filter(decoder, tasks=names)
        if downlink == "grid":
            target.add_server_output_filter(ToGrid(), tasks=names)
            target.add_client_input_filter(FromGrid(), tasks=names)
        job = target._job  # a recipe has no public attribute for its job
    else:
        job = target
        job.to_clients(ToFrame(), filter_type=FilterType.TASK_RESULT, tasks=names)
        job.to_server(decoder, filter_type=FilterType.TASK_RESULT, tasks=names)
        if downlink == "grid":
            job.to_server(ToGrid(), filter_type=FilterType.TASK_DATA, tasks=names)
            job.to_clients(FromGrid(), filter_type=FilterType.TASK_DATA, tasks=names)
    job.set_app_packages(sorted({*job.job.app_packages, *PACKAGES}))
    _ignore_refused(job)


def _ignore_refused(job: FedJob) -> None:
    """Set `ignore_result_error` where it is None; FedAvg would end the job at the first refused result."""
    server = job._deploy_map.get("server")
    for workflow in server.app_config.workflows if server else ():
        controller = workflow.controller
        if isinstance(controller, BaseModelController) and controller._ignore_result_error is None:
            controller._ignore_result_error = True
        if isinstance(controller, ScatterAndGather) and controller.ignore_result_error is None:
            controller.ignore_result_error = True
