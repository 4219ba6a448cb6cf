"""`python -m rlprune.serving FOLDER`: what `rlprune serve` does where only what serves is installed: in a container."""

from __future__ import annotations

import argparse
import sys

from rlprune.errors import RLPruneError
from rlprune.serving.served import find, open_served
from rlprune.utils.imports import require


def main() -> None:
    """Answer over HTTP until SIGTERM or Ctrl-C; a user's mistake is one line and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m rlprune.serving", description=main.__doc__)
    parser.add_argument("folder", help="a deploy folder, a bundle, or an .onnx file")
    parser.add_argument("--host", default="127.0.0.1", help="name or address to listen at (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="to listen at; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=0, help="of the processor; 0 takes all (default: %(default)s)")
    given = parser.parse_args()
    try:
        server = require("rlprune.serving.server", "serve")
        source = find(given.folder)
        with server.listen(given.host, given.port) as listening:
            answering = server.HttpServer(open_served(source, given.threads), listening)
            print(f"serving {source.path} by {source.backend}\nat {server.url_of(listening)}", flush=True)
            answering.run()
    except RLPruneError as error:
        print(f"rlprune: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # the signal that has ended it
        print("ended; nothing was left undone")


if __name__ == "__main__":
    main()
