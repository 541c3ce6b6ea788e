"""A stand-in for the Open Science Framework, strict where OSF is: for tests, on loopback.

Five hosts on five ports, as there are five behind a download: the API, the site, the storage
server of a region (WaterButler), the bucket with the bytes, and the accounts server with its
log-in page. Written from what is known of OSF, not from what our client does: ids and guids
differ, page sizes end at 100, pages beyond the last are 404, signed addresses live a minute,
versions are pinned, a deleted file is gone in every version, rates can be limited.
"""

from __future__ import annotations

from osf_standin.clock import FakeClock
from osf_standin.faults import MODES, Fault
from osf_standin.server import OsfStandin, Seen
from osf_standin.tls import TlsFront
from osf_standin.tree import File, Folder, Node

__all__ = [
    "MODES",
    "FakeClock",
    "Fault",
    "File",
    "Folder",
    "Node",
    "OsfStandin",
    "Seen",
    "TlsFront",
]
