"""The addresses of a locked file, made from OSF's ids; nothing here can open one."""

from __future__ import annotations

from verse_data.records.lock import LockedFile


def download_url(site: str, file_id: str, version: int) -> str:
    """Return the address of exactly one version of a file.

    The id and not the guid is in it, for guids exist only for some files. The address that it
    leads to lives for a minute and must never be kept.
    """
    return f"{site}/download/{file_id}/?version={version}"


def file_urls(file: LockedFile, *, osf_site: str) -> tuple[str, ...]:
    """Return all addresses of `file`, the one on OSF first.

    OSF addresses are made from ids when they are needed and stand in no lock, so that a lock is
    the same whichever endpoint it was made through.
    """
    if file.file_id is None or file.file_version is None:
        return file.urls
    return (download_url(osf_site, file.file_id, file.file_version), *file.urls)
