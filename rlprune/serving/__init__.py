"""What answers over HTTP, and what other servers need: `rlprune serve`, and model repositories of Triton.

May import `rlprune.storage` and below, nothing that trains. FastAPI, uvicorn and prometheus-client (the extra `serve`)
are needed by `rlprune.serving.app` and `rlprune.serving.server` alone, which are imported when a server starts.
"""

from rlprune.serving.limits import Limits
from rlprune.serving.served import Served, Source, find, open_served
from rlprune.serving.triton import save_triton

__all__ = ["Limits", "Served", "Source", "find", "open_served", "save_triton"]
