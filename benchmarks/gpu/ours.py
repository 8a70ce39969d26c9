"""Our backend for a job on a GPU."""

from __future__ import annotations

from benchmarks.contenders import Job
from xpnet.backends import Backend, get_backend


def backend_of(job: Job) -> Backend:
    """The backend, with TF32 where the job wants it; backends without that, which only tests are
    about, as they are."""
    backend = get_backend(job.backend)
    if hasattr(backend, "tf32"):
        backend.tf32 = job.tf32
    return backend
