"""Any path or URL: objects of S3, Google Cloud Storage, Azure and web servers read and written like files. No torch.

`place` tells a URL from a path; all that reads data takes either. Requests go through obstore (Rust's object_store), which tries
again after a closed connection, a status of 5xx or 429, or silence, with growing pauses; a body that was cut off goes on where it
ended. Where it does not (the answer to a listing, a removal, an upload in parts breaks off), `connecting.patiently` does.
What does not come right is an error with the URL, after a time that is known. In the order in which one builds on the other:

    addresses     a path or a URL
    connecting    how a store is reached, retries, credentials, errors with the URL
    reading       an object, or a part of it; its size
    folders       what lies in a folder; which of many files are there
    copies        files and folders up and down
    mirroring     a folder that is worked in, and its copy in a store
    outputs       what `--out` means where it is a URL
"""

from coverslip.storage.addresses import URL, Place, absolute, is_url, place
from coverslip.storage.connecting import AT_ONCE, CHUNK, ENDPOINT, PATIENCE, TIMEOUT
from coverslip.storage.copies import (
    delete,
    download,
    download_folder,
    local_copy,
    local_folder,
    upload,
    upload_folder,
    writable,
    write,
)
from coverslip.storage.folders import exists, files_in, listing, stats
from coverslip.storage.outputs import output, output_file
from coverslip.storage.reading import Stat, read, stat

__all__ = [
    "AT_ONCE",
    "CHUNK",
    "ENDPOINT",
    "PATIENCE",
    "TIMEOUT",
    "URL",
    "Place",
    "Stat",
    "absolute",
    "delete",
    "download",
    "download_folder",
    "exists",
    "files_in",
    "is_url",
    "listing",
    "local_copy",
    "local_folder",
    "output",
    "output_file",
    "place",
    "read",
    "stat",
    "stats",
    "upload",
    "upload_folder",
    "writable",
    "write",
]
