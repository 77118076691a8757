"""The public names of `recorder.server`, each with its module. `recorder.core.lazy_imports` reads them."""

from recorder.server.app import create_app as create_app
from recorder.server.streams import resumed_run as resumed_run
from recorder.server.streams import stream_response as stream_response
