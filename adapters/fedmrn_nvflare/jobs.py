"""Adding the filters to a recipe or a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nvflare.apis.executor import Executor
from nvflare.apis.filter import Filter
from nvflare.apis.job_def import ALL_SITES
from nvflare.app_common.workflows.base_model_controller import BaseModelController
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather
from nvflare.fuel.utils.class_utils import get_component_init_parameters
from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType
from nvflare.recipe.spec import Recipe

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import SecAgg

from .client import ToFrame
from .downlink import FromGrid, ToGrid
from .secagg import NO_SINGLE, TASKS
from .server import FromFrame

if TYPE_CHECKING:
    from .workflow import SecureFedAvg

PACKAGES = ("fedmrn_codec", "fedmrn_nvflare", "fedmrn_secagg")
DOWNLINKS = ("grid", "raw")
"""The values of the option `downlink` of `attach`."""

NO_FRAMES = "none, since masks are sent as counts, and no frame reaches the server"
REFUSED = {"output": NO_SINGLE, "coding": NO_FRAMES, "limits": NO_FRAMES, "bits": NO_FRAMES}
"""Settings of `FromFrame` that secure aggregation refuses, with what is expected."""

SINGLE = ("aggregator", "exclude_vars", "aggregation_weights", "enable_tensor_disk_offload")
"""Options of FedAvg that need single results."""


def attach(
    target: Recipe | FedJob,
    noise: fm.Noise | str | None = None,
    tasks: Sequence[str] = ("train",),
    *,
    downlink: str = "grid",
    secure: SecAgg | None = None,
    **settings: Any,
) -> None:
    """Make the clients of a recipe or a job send frames, and the server too.

    Adds `ToFrame` to all clients and `FromFrame` to the server; and, for the way of the model to the clients,
    `ToGrid` to the server and `FromGrid` to all clients. If a FedAvg or ScatterAndGather has no value
    for `ignore_result_error`, it is set to True, so that the job continues without a refused result. The job
    imports this library, which must be installed on the server and on every client; NVFlare does not copy
    its files into the job.

    Call it last, when the job has its workflow and its clients. Where each client has an app of its own, all
    of them get the filters.

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
    secure : SecAgg, optional
        Secure aggregation: the server obtains the sum of the updates of a round, and no single one. A
        `SecureFedAvg` takes the place of the job's FedAvg; all clients of a round have one seed, and the mean
        has equal weights unless `secure` says otherwise. For FedAvg itself, without options that need single
        results.
    **settings
        Of `FromFrame`: `mask`, `output`, `masked`, `leave_out`, `seed`, `max_weight`, `coding`,
        `dense_coding`, `bits`, `state`, `limits`. With `secure` of `SecureFedAvg`: without `output`,
        `coding`, `bits` and `limits`, and with `timeout`, the seconds to wait for the results of each task.

    Raises
    ------
    fedmrn_codec.ArgumentError
        A setting is out of range; the target is neither a recipe nor a job, or a job that has no workflow or
        no clients yet; or, with `secure`, the job's workflow or a setting needs single results.
    """
    if not isinstance(target, Recipe | FedJob):
        raise fm.ArgumentError("target", "a Recipe or a FedJob", type(target).__name__)
    if isinstance(tasks, str):
        raise fm.ArgumentError("tasks", "a sequence of names", repr(tasks))
    if downlink not in DOWNLINKS:
        raise fm.ArgumentError("downlink", f"one of {', '.join(DOWNLINKS)}", repr(downlink))
    job = target._job if isinstance(target, Recipe) else target  # a recipe has no public attribute for it
    if isinstance(target, FedJob):
        _check_complete(target)
    names = list(tasks)
    if secure is None:
        _add(target, ToFrame(), filter_type=FilterType.TASK_RESULT, tasks=names)
        server = FromFrame(noise, **settings, tasks=names)
        job.to_server(server, filter_type=FilterType.TASK_RESULT, tasks=names)
    else:
        _secure(target, job, secure, names, noise, settings)
    if downlink == "grid":
        job.to_server(ToGrid(), filter_type=FilterType.TASK_DATA, tasks=names)
        _add(target, FromGrid(), filter_type=FilterType.TASK_DATA, tasks=names)
    job.set_app_packages(sorted({*job.job.app_packages, *PACKAGES}))
    _ignore_refused(job)


def _check_complete(job: FedJob) -> None:
    """Refuse a job to which parts are still to be added: the filters and settings would miss them."""
    for what, there in (("workflow", _workflows(job)), ("clients", job.clients)):
        if not there:
            raise fm.ArgumentError(f"{what} of the job", "at least one, added before `attach`", "none")


def _workflows(job: FedJob) -> list[Any]:
    server = job._deploy_map.get("server")
    return list(server.app_config.workflows) if server else []


def _add(target: Recipe | FedJob, part: Filter | Executor, **where: Any) -> None:
    """Add a filter or an executor to every client: to the app that all have, or else to that of each."""
    if isinstance(target, Recipe):
        target._add_to_client_apps(part, **where)  # has no public method for executors
        return
    for client in [ALL_SITES] if ALL_SITES in target.clients else target.clients:
        target.to(part, client, **where)


def _secure(
    target: Recipe | FedJob,
    job: FedJob,
    secure: SecAgg,
    tasks: list[str],
    noise: fm.Noise | str | None,
    settings: dict[str, Any],
) -> None:
    """Put a SecureFedAvg in the place of the job's FedAvg, and add the client's side of it."""
    if not isinstance(secure, SecAgg):
        raise fm.ArgumentError("secure", "a SecAgg", type(secure).__name__)
    for name in settings.keys() & REFUSED:
        raise fm.ArgumentError(f"{name} with secure", REFUSED[name], repr(settings[name]))
    workflows = _workflows(job)
    if [type(workflow.controller) for workflow in workflows] != [FedAvg]:
        expected = "one FedAvg of nvflare.app_common.workflows.fedavg, and no subclass of it"
        found = ", ".join(type(workflow.controller).__name__ for workflow in workflows) or "none"
        raise fm.ArgumentError("workflow of the job with secure", expected, found)
    (workflow,) = workflows
    controller = _secured(workflow.controller, secure, noise, settings)
    if controller.task_name not in tasks:
        raise fm.ArgumentError("tasks with secure", f"{controller.task_name!r}, FedAvg's, among them", tasks)
    controller.set_communicator(workflow.controller.communicator)
    workflow.controller = controller
    from .secure_client import Exchange, ToMasked

    _add(target, ToMasked(), filter_type=FilterType.TASK_RESULT, tasks=tasks)
    _add(target, Exchange(), tasks=list(TASKS.values()))


def _secured(
    fedavg: FedAvg, secure: SecAgg, noise: fm.Noise | str | None, settings: dict[str, Any]
) -> SecureFedAvg:
    """A SecureFedAvg with the options of a FedAvg, as NVFlare itself reads them for a job's configuration."""
    from .workflow import SecureFedAvg

    for name in SINGLE:
        if getattr(fedavg, name):
            raise fm.ArgumentError(f"{name} of FedAvg with secure", NO_SINGLE, repr(getattr(fedavg, name)))
    attributes = vars(fedavg)
    options = {
        name: attributes[name] if name in attributes else attributes[f"_{name}"]
        for name in get_component_init_parameters(fedavg).keys() - {"args", "kwargs"}
        if name in attributes or f"_{name}" in attributes
    }
    return SecureFedAvg(**options, secure=secure, noise=noise, **settings)


def _ignore_refused(job: FedJob) -> None:
    """Set `ignore_result_error` where it is None; FedAvg would end the job at the first refused result."""
    for workflow in _workflows(job):
        controller = workflow.controller
        if isinstance(controller, BaseModelController) and controller._ignore_result_error is None:
            controller._ignore_result_error = True
        if isinstance(controller, ScatterAndGather) and controller.ignore_result_error is None:
            controller.ignore_result_error = True
