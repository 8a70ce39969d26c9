"""The two sides of the comparison, xpnet and PyTorch: can a contender run here, and its runner."""

from __future__ import annotations

from importlib import import_module

from benchmarks.contenders import Job, Runner


def missing(job: Job) -> str | None:
    """Why the contender cannot run here, and what to do about it; None if it can."""
    if not job.contender.startswith("torch"):
        from xpnet.backends import BackendError, get_backend
        try:
            get_backend(job.backend)
        except BackendError as error:
            return str(error).removeprefix(f"{job.backend}: ")
        except ValueError as error:
            return f"this version of xpnet cannot make it ({error})"
        return None
    try:
        import torch
    except ImportError as error:
        return f'PyTorch cannot be imported ({error}); to install it: pip install "xpnet[bench]"'
    if job.device == "gpu" and not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no GPU that it can use"
    return None


def load(job: Job) -> None:
    """Import what the contender needs, without starting threads or a GPU."""
    if job.contender.startswith("torch"):
        from benchmarks.torch_side import load_all
        load_all()
        return
    import_module("benchmarks.xpnet_side")
    if job.contender == "numba":
        import_module("numba")


def runner(job: Job, batch: int) -> Runner:
    """The runner of the contender, for a batch of this size."""
    if job.contender.startswith("torch"):
        from benchmarks.torch_side import Eager
        return Eager(job, job.contender.removeprefix("torch-"), batch)
    from benchmarks.xpnet_side import Xpnet
    return Xpnet(job, batch)
